"""Supervision of one trial: from job to evidence, with limits that kill."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from asi_lab import protocol
from asi_lab.engineer.executor import Health, MalformedReport, Source, TrialPair
from asi_lab.errors import TrialError
from asi_lab.protocol import Report, ScoreJob, TrialJob
from asi_lab.records import CandidateState, Evidence
from asi_lab.settings import Limits

POLL_SECONDS = 0.25
LOOK_SECONDS = 0.5
LEAST_FREE_BYTES = 32 * 2**20
GRACE_SECONDS = 1.0
"""How long to listen on after a process has died: its last reports may be on their way."""


class _Ended(Exception):
    """The candidate ends in a failure state."""

    def __init__(self, state: CandidateState, error: str) -> None:
        super().__init__(error)
        self.state = state


def run(
    pair: TrialPair,
    trial: TrialJob,
    score: ScoreJob,
    observe: Callable[[Report], None],
    tick: Callable[[], None],
    before: Evidence | None = None,
) -> Evidence:
    """Run one trial to its end and return the evidence, failures included.

    `observe` sees every report of the trial in order; `tick` is called a few times a second and may
    raise to cut the trial off. `before` holds what an earlier, cut-off run of the same trial measured.

    Raises:
        TrialError: the scoring process broke: our fault or the machine's, not the candidate's.
    """
    evidence = before or Evidence()
    try:
        pair.start(trial, score)
        supervisor = _Supervisor(pair, trial.limits)
        while True:
            for source, report in supervisor.reports():
                if isinstance(report, protocol.Scored) and source == "scorer":
                    return msgspec.structs.replace(evidence, evaluation=report.evaluation)
                if isinstance(report, protocol.Failed):
                    raise _Ended(report.state, report.error)
                if source == "scorer":
                    continue
                if isinstance(report, protocol.Checked):
                    evidence = msgspec.structs.replace(evidence, checks=evidence.checks + report.checks)
                elif isinstance(report, protocol.Trained):
                    evidence = msgspec.structs.replace(evidence, training=report.training)
                observe(report)
            tick()
            supervisor.enforce()
    except _Ended as end:
        _blame_a_full_disk(Path(trial.directory), end)
        return msgspec.structs.replace(evidence, failure=end.state, error=str(end))
    except MalformedReport as error:
        return msgspec.structs.replace(evidence, failure=CandidateState.BROKEN, error=f"The trial {error}")
    finally:
        pair.finish(Path(trial.directory))


class _Supervisor:
    """Watches one pair against its limits."""

    def __init__(self, pair: TrialPair, limits: Limits) -> None:
        self.pair, self.limits = pair, limits
        self.started = self.last_word = time.monotonic()
        self.next_look = 0.0
        self.death: float | None = None

    def reports(self) -> list[tuple[Source, Report]]:
        found = self.pair.poll(POLL_SECONDS)
        if found:
            self.last_word = time.monotonic()
        return found

    def enforce(self) -> None:
        """Raise `_Ended` where a limit is passed or the trial has died."""
        now = time.monotonic()
        limits = self.limits
        if now - self.started > limits.trial_seconds:
            raise _Ended(CandidateState.TIMED_OUT, f"more than {limits.trial_seconds:g} s in all")
        if now - self.last_word > limits.stall_seconds:
            raise _Ended(CandidateState.TIMED_OUT, f"silent for more than {limits.stall_seconds:g} s")
        if now < self.next_look:
            return
        self.next_look = now + LOOK_SECONDS
        health = self.pair.health()
        resident = health.trial_bytes / 2**30
        if resident > limits.memory_gb:
            error = f"{resident:.1f} GB resident, limit {limits.memory_gb:g} GB"
            raise _Ended(CandidateState.OUT_OF_MEMORY, error)
        if health.printed_bytes > limits.log_mb * 2**20:
            raise _Ended(CandidateState.BROKEN, f"printed more than {limits.log_mb:g} MB")
        self._deaths(health, now)

    def _deaths(self, health: Health, now: float) -> None:
        if health.trial_exit is None and health.scorer_exit is None:
            return
        self.death = self.death or now
        if now - self.death < GRACE_SECONDS:
            return
        if health.trial_exit is not None:
            error = f"the trial {_words(health.trial_exit)}\n{self.pair.said('trial')}".strip()
            raise _Ended(_state_of_exit(health.trial_exit), error)
        if health.scorer_exit == protocol.TRIAL_UNUSABLE:
            raise _Ended(CandidateState.BROKEN, f"the trial cannot be scored: {self.pair.said('scorer')}")
        raise TrialError(
            f"The scoring process {_words(health.scorer_exit or 0)}. The candidate was not judged and will "
            f"be scored again when the search is started again.\n{self.pair.said('scorer')}"
        )


def _blame_a_full_disk(directory: Path, end: _Ended) -> None:
    """A candidate that ends while the disk is full has most likely only failed to write its checkpoint."""
    free = shutil.disk_usage(directory).free
    if free < LEAST_FREE_BYTES:
        raise TrialError(
            f"{directory}: expected room on the disk, found {free / 2**20:.0f} MB free when the trial ended "
            f"with: {end}\nThe candidate was not judged. Free some space and start the search again: it goes "
            "on there."
        )


def _state_of_exit(code: int) -> CandidateState:
    """A SIGKILL that we did not send comes, as a rule, from the kernel's out-of-memory killer."""
    return CandidateState.OUT_OF_MEMORY if code == -signal.SIGKILL else CandidateState.BROKEN


def _words(code: int) -> str:
    if code < 0:
        return f"was ended by signal {signal.Signals(-code).name}"
    return f"ended without a result, exit status {code}"
