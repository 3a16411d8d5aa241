"""Supervision of one trial: from job to evidence, with limits that kill."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from asi_lab import protocol
from asi_lab.engineer import resume
from asi_lab.engineer.executor import Health, Source, TrialPair
from asi_lab.engineer.monitor import Ended, Expectations, Monitor
from asi_lab.engineer.process import MalformedReport
from asi_lab.engineer.workspace import Tampered
from asi_lab.errors import TrialError
from asi_lab.protocol import ARCHITECTURE_FILE, CHECKPOINT_FILE, RESUME_FILE, Report, ScoreJob, TrialJob
from asi_lab.records import CandidateState, Evidence, Training
from asi_lab.settings import Limits, Supervise

S = CandidateState
Observe = Callable[[Report, Evidence], None]
"""Sees a report and what is known after it."""

POLL_SECONDS = 0.25
LOOK_SECONDS = 0.5
LEAST_FREE_BYTES = 32 * 2**20
GRACE_SECONDS = 1.0
"""How long to listen on after a process has died: its last reports may be on their way."""

GREEDY = 0.5
"""A trial that the kernel ended for want of memory is to blame if it held this share of its limit."""

TRIAL_FAILURES = frozenset({S.BROKEN, S.LEAKING, S.REJECTED, S.DIVERGED, S.SLOW, S.OUT_OF_MEMORY})
"""Ends that a trial may report of itself."""

NEXT_STAGE = {None: S.PREFLIGHTED, S.PREFLIGHTED: S.TRAINING}


class Watch(msgspec.Struct, frozen=True):
    """What a trial is held against while it runs, and who is told. By default nothing and nobody.

    `observe` is called after every report that was taken; `tick` a few times a second, and may raise to cut
    the trial off. `keep` makes what training goes on from count, once its file is in the directory.
    """

    supervise: Supervise = Supervise()
    expected: Expectations = Expectations()
    observe: Observe = lambda report, evidence: None
    tick: Callable[[], None] = lambda: None
    keep: Callable[[Path, resume.Cut], None] = resume.keep


def run(
    pair: TrialPair,
    trial: TrialJob,
    score: ScoreJob | None,
    directory: Path,
    watch: Watch = Watch(),  # noqa: B008  immutable
    before: Evidence | None = None,
    cut: resume.Cut | None = None,
    *,
    trusted: bool = False,
) -> Evidence:
    """Run one trial to its end and return the evidence, failures included.

    Args:
        pair: a trial and a scorer that wait for their jobs.
        trial: its job. The files it needs lie in `directory`.
        score: the job of the scorer; without one the trial ends after its checks.
        directory: the candidate's own, where logs and checkpoint go.
        watch: see there.
        before: what an earlier, cut-off run of the same trial measured.
        cut: where its training goes on, for the task `resume`.
        trusted: the code is ours, so that others may use what it compiled.

    A trial that was killed from outside ends as interrupted: the candidate is not to blame.

    Raises:
        TrialError: the machinery broke: our fault or the machine's, not the candidate's.
    """
    monitor = Monitor(watch.supervise, watch.expected, cut.seconds if cut else 0.0)
    followed = _Followed(pair, trial, directory, monitor, before or Evidence(), watch.keep)
    try:
        pair.start(trial, score, _files(directory, trial, cut))
        supervisor = _Supervisor(pair, trial.limits)
        while True:
            for source, report in supervisor.reports():
                followed.see(source, report)
                if trusted and isinstance(report, protocol.Trained):
                    pair.keep_compiled()
                watch.observe(report, followed.evidence)
                if followed.is_done:
                    resume.forget(directory)
                    return followed.evidence
            watch.tick()
            followed.monitor.tick()
            supervisor.enforce(followed.is_ready)
    except Ended as end:
        _blame_a_full_disk(directory, end)
        if end.state is not S.INTERRUPTED:
            resume.forget(directory)
        checks = followed.evidence.checks + ((end.check,) if end.check else ())
        return msgspec.structs.replace(followed.evidence, checks=checks, failure=end.state, error=str(end))
    except (MalformedReport, Tampered) as error:
        resume.forget(directory)
        return msgspec.structs.replace(followed.evidence, failure=S.BROKEN, error=f"The trial {error}")
    finally:
        pair.finish(directory)


def _files(directory: Path, trial: TrialJob, cut: resume.Cut | None) -> dict[str, Path]:
    """What the trial finds in its working directory."""
    files = {ARCHITECTURE_FILE: directory / ARCHITECTURE_FILE}
    if trial.task == "serve":
        files[CHECKPOINT_FILE] = directory / CHECKPOINT_FILE
    elif cut is not None:
        files[RESUME_FILE] = directory / cut.file
    return files


class _Followed:
    """Turns reports into evidence, and takes nothing from a trial that it can know better itself."""

    def __init__(
        self,
        pair: TrialPair,
        job: TrialJob,
        directory: Path,
        monitor: Monitor,
        evidence: Evidence,
        keep: Callable[[Path, resume.Cut], None],
    ) -> None:
        self.pair, self.job, self.directory, self.monitor = pair, job, directory, monitor
        self.keep = keep
        self.evidence = evidence
        self.is_ready = self.is_done = False
        self._stage: CandidateState | None = None

    def see(self, source: Source, report: Report) -> None:
        """Take in one report.

        Raises:
            Ended: the candidate fails.
            MalformedReport, Tampered: the trial lies about what it did.
        """
        if source == "scorer":
            self._of_scorer(report)
        else:
            self._of_trial(report)

    def _of_scorer(self, report: Report) -> None:
        if isinstance(report, protocol.Measured):
            self._know(held_out=(*self.evidence.held_out, report.held_out))
            self.monitor.see_held_out(report.held_out)
        elif isinstance(report, protocol.Scored):
            self._know(evaluation=report.evaluation)
            self.is_done = True
        elif isinstance(report, protocol.Failed):
            raise Ended(report.state, report.error)

    def _of_trial(self, report: Report) -> None:
        if isinstance(report, protocol.Ready):
            self.is_ready = True
        elif isinstance(report, protocol.Checked):
            self._know(checks=self.evidence.checks + report.checks)
        elif isinstance(report, protocol.Stage):
            self._enter(report.state)
        elif isinstance(report, protocol.Progress):
            self.monitor.see(report)
        elif isinstance(report, protocol.Compiled):
            self.monitor.compiled()
        elif isinstance(report, protocol.Saved):
            self._saved(report.step)
        elif isinstance(report, protocol.Trained):
            self._trained(report.training)
        elif isinstance(report, protocol.Failed):
            raise Ended(report.state if report.state in TRIAL_FAILURES else S.BROKEN, report.error)

    def _enter(self, stage: CandidateState) -> None:
        if stage is not NEXT_STAGE.get(self._stage):
            raise MalformedReport(f"claims to be {stage.value} after {self._stage or 'nothing'}")
        self._stage = stage
        if stage is S.TRAINING:
            self.monitor.begin()
        self.is_done = self.job.task == "check" and stage is S.PREFLIGHTED

    def _saved(self, step: int) -> None:
        """What training goes on from is fetched, and kept with what is known at this moment."""
        if self._stage is not S.TRAINING or not 0 < step < self.job.train.steps:
            raise MalformedReport(f"claims a checkpoint after {step} steps")
        digest = resume.digest(self.directory, self.job)
        cut = resume.Cut(digest, step, self.monitor.seconds, self.evidence.held_out)
        self.pair.take(cut.file, self.directory / cut.file)
        self.keep(self.directory, cut)

    def _trained(self, claimed: Training) -> None:
        """The checkpoint is fetched; counts and times are the engine's own."""
        if self.job.task not in ("train", "resume"):
            return
        if self._stage is not S.TRAINING or claimed.params < 1:
            raise MalformedReport("claims to be trained")
        self.pair.take(CHECKPOINT_FILE, self.directory / CHECKPOINT_FILE)
        train, seconds = self.job.train, self.monitor.seconds or claimed.seconds
        tokens = train.steps * train.batch * train.context
        measured = msgspec.structs.replace(
            claimed, steps=train.steps, tokens=tokens, seconds=seconds, tokens_per_second=tokens / seconds
        )
        self._know(training=measured)

    def _know(self, **found: object) -> None:
        self.evidence = msgspec.structs.replace(self.evidence, **found)


class _Supervisor:
    """Watches one pair against its limits."""

    def __init__(self, pair: TrialPair, limits: Limits) -> None:
        self.pair, self.limits = pair, limits
        self.started = self.last_word = time.monotonic()
        self.next_look = 0.0
        self.death: float | None = None
        self.killed_by_kernel = _kernel_kills()
        self.resident = 0.0

    def reports(self) -> list[tuple[Source, Report]]:
        found = self.pair.poll(POLL_SECONDS)
        if found:
            self.last_word = time.monotonic()
        return found

    def enforce(self, ready: bool) -> None:
        """Raise `Ended` where a limit is passed or the trial has died; `ready` says if it had come up."""
        now = time.monotonic()
        limits = self.limits
        if now - self.started > limits.trial_seconds:
            raise Ended(S.TIMED_OUT, f"more than {limits.trial_seconds:g} s in all")
        if now - self.last_word > limits.stall_seconds:
            raise Ended(S.TIMED_OUT, f"silent for more than {limits.stall_seconds:g} s")
        if now < self.next_look:
            return
        health = self.pair.health()
        self.next_look = now + (LOOK_SECONDS if health.trial_exit is None else POLL_SECONDS)
        written = health.written_bytes / 2**30
        if health.trial_exit is None:
            self.resident = health.trial_bytes / 2**30
        if self.resident > limits.memory_gb:
            raise Ended(S.OUT_OF_MEMORY, f"{self.resident:.1f} GB resident, limit {limits.memory_gb:g} GB")
        if health.printed_bytes > limits.log_mb * 2**20:
            raise Ended(S.BROKEN, f"printed more than {limits.log_mb:g} MB")
        if written > limits.disk_gb:
            raise Ended(S.BROKEN, f"wrote {written:.1f} GB to disk, limit {limits.disk_gb:g} GB")
        if health.processes > limits.processes:
            raise Ended(S.BROKEN, f"{health.processes} processes at once, limit {limits.processes}")
        self._deaths(health, now, ready)

    def _deaths(self, health: Health, now: float, ready: bool) -> None:
        if health.trial_exit is None and health.scorer_exit is None:
            return
        self.death = self.death or now
        if now - self.death < GRACE_SECONDS and not health.said_all:
            return
        if health.scorer_exit not in (None, 0, protocol.TRIAL_UNUSABLE):
            self._scorer_died(health.scorer_exit)
        if health.trial_exit is not None:
            said = f"the trial {_words(health.trial_exit)}\n{self.pair.said('trial')}".strip()
            if not ready:
                raise TrialError(
                    f"A trial process could not be started: {said}\nThe candidate was not judged. Find out "
                    "what is wrong with: asi-lab doctor"
                )
            raise Ended(self._state_of_exit(health.trial_exit), said)
        if health.scorer_exit == protocol.TRIAL_UNUSABLE:
            raise Ended(S.BROKEN, f"the trial cannot be scored: {self.pair.said('scorer')}")

    def _scorer_died(self, code: int) -> None:
        """Killed from outside it takes the trial with it; what else ends it is our fault."""
        if code in (-signal.SIGKILL, -signal.SIGTERM):
            raise Ended(S.INTERRUPTED, f"the scoring process {_words(code)}")
        raise TrialError(
            f"The scoring process {_words(code)}. The candidate was not judged and will be scored again when "
            f"the search is started again.\n{self.pair.said('scorer')}"
        )

    def _state_of_exit(self, code: int) -> CandidateState:
        """SIGKILL comes from the kernel, for want of memory, or from somebody else. Where the kernel took a
        trial that held little, others had filled the memory."""
        if code == -signal.SIGKILL:
            greedy = self.resident > GREEDY * self.limits.memory_gb
            return S.OUT_OF_MEMORY if greedy and _kernel_kills() > self.killed_by_kernel else S.INTERRUPTED
        return S.INTERRUPTED if code == -signal.SIGTERM else S.BROKEN


def _kernel_kills() -> int:
    """How many processes the kernel has ended for want of memory since the machine started."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def _blame_a_full_disk(directory: Path, end: Ended) -> None:
    """A candidate that ends while the disk is full has most likely only failed to write its checkpoint."""
    free = shutil.disk_usage(directory).free
    if free < LEAST_FREE_BYTES:
        raise TrialError(
            f"{directory}: expected room on the disk, found {free / 2**20:.0f} MB free when the trial ended "
            f"with: {end}\nThe candidate was not judged. Free some space and start the search again: it goes "
            "on there."
        )


def _words(code: int) -> str:
    if code < 0:
        return f"was ended by signal {signal.Signals(-code).name}"
    return f"ended without a result, exit status {code}"
