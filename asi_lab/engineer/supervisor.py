"""Watches the processes of one trial against their limits, and judges what their deaths mean."""

from __future__ import annotations

import contextlib
import math
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

from asi_lab import protocol
from asi_lab.common import cgroup
from asi_lab.common.clock import Clock
from asi_lab.engineer.executor import Health, Trio
from asi_lab.engineer.monitor import Ended, Expectations
from asi_lab.errors import TrialError
from asi_lab.records import CandidateState, Check
from asi_lab.settings import Limits

S = CandidateState

POLL_SECONDS = 0.25
LOOK_SECONDS = 0.5
LEAST_FREE_BYTES = 32 * 2**20
GRACE_SECONDS = 1.0
"""How long to listen on after a process has died: its last reports may be on their way."""

SIGNALS = {int(number): number.name for number in signal.Signals}
"""Names of signals; most of those for real-time use have none."""

GREEDY = 0.5
"""A trial that the kernel ended for want of memory is to blame if it held this share of its limit."""


class Supervisor:
    """Watches one trio. Time is the engine's own: what it slept through counts for nobody."""

    def __init__(self, trio: Trio, limits: Limits, expected: Expectations, clock: Clock) -> None:
        self.trio, self.limits, self.expected, self.clock = trio, limits, expected, clock
        self._last_word = self._next_look = 0.0
        self._death: float | None = None
        self._groups = cgroup.own()
        self._kills = _kernel_kills(self._groups)
        self._resident = 0.0

    def hear(self) -> None:
        """A report came."""
        self._last_word = self.clock.now()

    def overdue(self) -> Ended | None:
        """The end for a deadline that has passed, if there is no report that nobody has read yet."""
        now, limits = self.clock.now(), self.limits
        if now > limits.trial_seconds:
            return Ended(S.TIMED_OUT, f"more than {limits.trial_seconds:g} s in all")
        if now - self._last_word > limits.stall_seconds:
            return Ended(S.TIMED_OUT, f"silent for more than {limits.stall_seconds:g} s")
        return None

    def enforce(self, *, ready: bool, quoted: bool, earlier_cpu: float = 0.0) -> None:
        """Raise `Ended` where a limit but that of time is passed or a process has died.

        Args:
            ready: whether the process that runs candidate code has come up.
            quoted: whether what it printed may be told further.
            earlier_cpu: processor seconds that an earlier part of the same training took.
        """
        now, limits = self.clock.now(), self.limits
        if now < self._next_look:
            return
        health = self.trio.health()
        self._next_look = now + (LOOK_SECONDS if health.exit is None else POLL_SECONDS)
        written = health.written_bytes / 2**30
        if health.exit is None:
            self._resident = health.resident_bytes / 2**30
        if self._resident > limits.memory_gb:
            raise Ended(S.OUT_OF_MEMORY, f"{self._resident:.1f} GB in memory, limit {limits.memory_gb:g} GB")
        if health.printed_bytes > limits.log_mb * 2**20:
            raise Ended(S.BROKEN, f"printed more than {limits.log_mb:g} MB")
        if written > limits.disk_gb:
            raise Ended(S.BROKEN, f"wrote {written:.1f} GB to disk, limit {limits.disk_gb:g} GB")
        if health.processes > limits.processes:
            raise Ended(S.BROKEN, f"{health.processes} processes at once, limit {limits.processes}")
        self._processor(health.cpu_seconds + earlier_cpu)
        self._deaths(health, now, ready, quoted)

    def _processor(self, seconds: float) -> None:
        most = self.expected.most_cpu_seconds
        if most is not None and seconds > most:
            words = f"took {seconds:.0f} s of processor time, the baseline {most / self.limits.cpu_ratio:.0f}"
            check = Check("processor_time", False, seconds, most, words)
            raise Ended(S.SLOW, f"processor_time: {words}", check)

    def _deaths(self, health: Health, now: float, ready: bool, quoted: bool) -> None:
        if health.exit is None and health.scorer_exit is None:
            return
        self._death = self._death or now
        if now - self._death < GRACE_SECONDS and not health.said_all:
            return
        unusable = {"trial": protocol.TRIAL_UNUSABLE, "server": protocol.SERVER_UNUSABLE}
        by_kernel = _kernel_kills(self._groups) > self._kills
        if health.scorer_exit and health.scorer_exit not in unusable.values():
            self._scorer_died(health.scorer_exit, by_kernel)
        if health.scorer_exit == unusable[health.at_work] and (health.exit is None or health.exit >= 0):
            raise Ended(S.FORGED, f"the {health.at_work} cannot be scored: {self.trio.said('scorer')}")
        if health.exit is not None:
            state, ended = self._meaning(health.exit, by_kernel)
            if not ready and health.at_work == "trial" and state is S.BROKEN:
                raise TrialError(
                    f"A trial process could not be started: it {ended}\n"
                    f"{self.trio.said('trial')}\nThe candidate was not judged. Find out what is wrong with: "
                    "asi-lab doctor"
                )
            said = self.trio.said(health.at_work) if quoted else "what it printed is in its log"
            raise Ended(state, f"the {health.at_work} {ended}\n{said}".strip())

    def _scorer_died(self, code: int, by_kernel: bool) -> None:
        """Killed from outside it takes the trial with it; what else ends it is our fault."""
        if code in (-signal.SIGKILL, -signal.SIGTERM):
            raise Ended(S.INTERRUPTED, f"the scoring process {self._ending(code, by_kernel)}")
        raise TrialError(
            f"The scoring process {_words(code)}. The candidate was not judged and will be scored again when "
            f"the search is started again.\n{self.trio.said('scorer')}"
        )

    def _meaning(self, code: int, by_kernel: bool) -> tuple[CandidateState, str]:
        """What an exit status means, as a state and in words. SIGKILL comes from the kernel, for want of
        memory, or from somebody else. Where the kernel took a trial that held little, others had filled the
        memory."""
        words = self._ending(code, by_kernel)
        if code == -signal.SIGKILL and by_kernel:
            room = min(self.limits.memory_gb, self._groups.memory_bytes() / 2**30)
            state = S.OUT_OF_MEMORY if self._resident > GREEDY * room else S.INTERRUPTED
            return state, f"{words}: it held {self._resident:.1f} GB when last seen"
        return S.INTERRUPTED if code in (-signal.SIGKILL, -signal.SIGTERM) else S.BROKEN, words

    def _ending(self, code: int, by_kernel: bool) -> str:
        """What an exit status is called; of what the kernel ended, with the limit that was reached."""
        if code != -signal.SIGKILL or not by_kernel:
            return _words(code)
        most = self._groups.memory_bytes() / 2**30
        whose = f"of the {most:.1f} GB of this control group" if math.isfinite(most) else "on this machine"
        return f"was ended by the kernel for want of memory {whose}"


def blame_a_full_disk(directory: Path, end: Ended, written: Callable[[], float]) -> None:
    """A candidate that ends while the disk is full has most likely only failed to write its checkpoint,
    unless it was the one that filled it, with the bytes that it has `written`.

    Raises:
        TrialError: the disk is full.
    """
    free = shutil.disk_usage(directory).free
    if free < LEAST_FREE_BYTES and free + written() < LEAST_FREE_BYTES:
        raise TrialError(
            f"{directory}: expected room on the disk, found {free / 2**20:.0f} MB free when the trial ended "
            f"with: {end}\nThe candidate was not judged. Free some space and start the search again: it goes "
            "on there."
        )


def _kernel_kills(groups: cgroup.Groups) -> int:
    """How many processes the kernel has ended for want of memory, in this control group or anywhere, since
    the machine started. A container may be told of its own alone."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1]) + groups.kills()
    return groups.kills()


def _words(code: int) -> str:
    if code < 0:
        return f"was ended by signal {SIGNALS.get(-code, -code)}"
    return f"ended without a result, exit status {code}"
