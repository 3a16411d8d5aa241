"""One trial from its job to its evidence.

the trial checks and trains -> its checkpoint is copied -> it trains the probes, which are copied likewise
-> it answers full rows, and is ended
-> a server that never held a target counts the model's work, and answers bare prefixes -> evidence
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from asi_lab import protocol
from asi_lab.common.clock import Clock
from asi_lab.common.process import physical_cores
from asi_lab.common.weights import BadWeights, Weights
from asi_lab.data import probes
from asi_lab.engineer import resume
from asi_lab.engineer.child import MalformedReport
from asi_lab.engineer.executor import Source, Trio
from asi_lab.engineer.gate import Forged, Gate, Place, ServerGate
from asi_lab.engineer.monitor import Ended, Expectations, Monitor
from asi_lab.engineer.supervisor import POLL_SECONDS, Supervisor, blame_a_full_disk
from asi_lab.engineer.workspace import Tampered
from asi_lab.errors import TrialError
from asi_lab.protocol import (
    ARCHITECTURE_FILE,
    CHECKPOINT_FILE,
    PROBE_FILES,
    RESUME_FILE,
    Compare,
    MeasureMark,
    Report,
    ScoreJob,
    ScoreWhole,
    ServeJob,
    TrialJob,
    probe_file,
)
from asi_lab.records import CandidateState, Check, Evaluation, Evidence, HeldOut, Training
from asi_lab.settings import Supervise

S = CandidateState
Observe = Callable[[Report, Evidence], None]
"""Sees a report and what is known after it."""

DRAWN = Compare(loss_positions=1024, task_positions=512, probe_positions=2048)
"""At how many positions a trial's answers are compared with a server's. A gain that hides in one of 200
positions of the loss is missed in 0.6 % of all cases."""

LEAST_SECONDS = 1e-3

WORDS_FILE = "failure.txt"
"""What a process said of its own failure, where its words may go no further than the candidate's
directory."""


class Supervision(msgspec.Struct, frozen=True):
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
    trio: Trio,
    trial: TrialJob,
    score: ScoreJob | None,
    directory: Path,
    watch: Supervision = Supervision(),  # noqa: B008  immutable
    before: Evidence | None = None,
    cut: resume.Cut | None = None,
    *,
    compare: Compare = DRAWN,
    trusted: bool = False,
) -> Evidence:
    """Run one trial to its end and return the evidence, failures included.

    Args:
        trio: a trial, a server and a scorer that wait for their jobs.
        trial: the trial's job. The files it needs lie in `directory`.
        score: the scorer's; without one the trial ends after its checks.
        directory: the candidate's own, where logs and checkpoint go.
        watch: see there.
        before: what an earlier, cut-off run of the same trial measured.
        cut: where its training goes on, for the task `resume`.
        compare: at how many positions its answers are compared with the server's.
        trusted: the code is ours, so that others may use what it compiled.

    A trial that was killed from outside ends as interrupted: the candidate is not to blame.

    Raises:
        TrialError: the machinery broke: our fault or the machine's, not the candidate's.
    """
    followed = _Followed(trio, trial, directory, watch, before or Evidence(), cut or resume.NOTHING, compare)
    try:
        trio.start(trial, score, _files(directory, trial, cut))
        supervisor = Supervisor(trio, trial.limits, watch.expected, followed.clock)
        while True:
            found, late = trio.poll(POLL_SECONDS), supervisor.overdue()
            while found or late:
                if not found:  # what still lies in the pipes counts before a deadline does
                    found = trio.poll(0.0)
                if late and not found:
                    raise late
                for source, report in found:
                    supervisor.hear()
                    admitted = followed.see(source, report)
                    if trusted and isinstance(admitted, protocol.Trained):
                        trio.keep_compiled()
                    watch.observe(admitted, followed.evidence)
                    if followed.is_done:
                        resume.forget(directory)
                        return followed.evidence
                found, late = [], supervisor.overdue()
            watch.tick()
            followed.monitor.tick()
            supervisor.enforce(
                ready=followed.is_ready, quoted=followed.is_quotable, earlier_cpu=followed.earlier.cpu_seconds
            )
    except Ended as end:
        blame_a_full_disk(directory, end, lambda: trio.health().written_bytes)
        if end.state is not S.INTERRUPTED:
            resume.forget(directory)
        checks = followed.evidence.checks + ((end.check,) if end.check else ())
        return msgspec.structs.replace(followed.evidence, checks=checks, failure=end.state, error=str(end))
    except (Forged, MalformedReport, Tampered, BadWeights) as error:
        resume.forget(directory)
        words = f"the trial cannot be believed: {error}"
        return msgspec.structs.replace(followed.evidence, failure=S.FORGED, error=words)
    finally:
        trio.finish(directory)


def _files(directory: Path, trial: TrialJob, cut: resume.Cut | None) -> dict[str, Path]:
    """What the trial finds in its working directory."""
    files = {ARCHITECTURE_FILE: directory / ARCHITECTURE_FILE}
    if trial.task == "serve":
        files |= _weights(directory)
    elif cut is not None:
        files[RESUME_FILE] = directory / cut.file
    return files


def _weights(directory: Path) -> dict[str, Path]:
    """All trained weights that lie there, by name: of the model and of the probes."""
    return {path.name: path for path in (directory / CHECKPOINT_FILE, *directory.glob(PROBE_FILES))}


class _Followed:
    """Turns reports into evidence, and says what is done next.

    It takes nothing from a trial that it can know better itself.
    """

    def __init__(
        self,
        trio: Trio,
        job: TrialJob,
        directory: Path,
        watch: Supervision,
        evidence: Evidence,
        earlier: resume.Cut,
        compare: Compare,
    ) -> None:
        self.trio, self.job, self.directory, self.watch = trio, job, directory, watch
        self.evidence, self.earlier, self.compare = evidence, earlier, compare
        self.clock = Clock()
        self.gate = Gate(job, earlier.step, shown=bool(earlier.held_out))
        self.server_gate = ServerGate()
        self.monitor = Monitor(watch.supervise, watch.expected, self.clock.now, earlier.seconds)
        self.is_done = False
        self._awaited: type[Report] | None = None
        self._mark = 0
        self._probe_began = 0.0
        self._probe_seconds: dict[str, float] = {}

    @property
    def is_ready(self) -> bool:
        """Whether the process that runs candidate code now has come up."""
        return self.gate.place > Place.STARTING if self.trio.at_work == "trial" else self.server_gate.is_ready

    @property
    def is_quotable(self) -> bool:
        """Whether what it printed may be told further: it has seen no held-out text."""
        return self.trio.at_work == "trial" and not self.gate.shown

    def see(self, source: Source, report: Report) -> Report:
        """Take in one report; returns what is left of it.

        Raises:
            Ended: the candidate fails.
            Forged, MalformedReport, Tampered, BadWeights: it lies about what it did.
            TrialError: the scorer said what it was not asked for, which is our fault.
        """
        if source == "scorer":
            self._of_scorer(report)
            return report
        admitted = (self.gate if source == "trial" else self.server_gate).admit(report)
        if isinstance(report, protocol.Failed) and isinstance(admitted, protocol.Failed):
            if admitted != report:
                (self.directory / WORDS_FILE).write_text(report.error, encoding="utf-8", errors="replace")
            raise Ended(admitted.state, admitted.error)
        return self._of_trial(admitted) if source == "trial" else self._of_server(admitted)

    def _of_trial(self, report: Report) -> Report:
        match report:
            case protocol.Checked(checks):
                if not self._are_known(checks):
                    self._know(checks=self.evidence.checks + checks)
            case protocol.Stage(S.TRAINING):
                self.monitor.begin()
            case protocol.Stage(S.PREFLIGHTED):
                self.is_done = self.job.task == "check"
            case protocol.Progress():
                self.monitor.see(report)
                rate = report.tokens / max(self.monitor.seconds, LEAST_SECONDS)
                return msgspec.structs.replace(report, tokens_per_second=rate)
            case protocol.Compiled():
                self.monitor.compiled()
            case protocol.AtMark(step):
                self._mark = step
                self._tell(MeasureMark(step), protocol.Measured)
            case protocol.Saved(step):
                self._saved(step)
            case protocol.Trained(claims):
                self._trained(claims)
                self._probe_or_score()
            case protocol.Loaded():
                self._probe_or_score()
            case protocol.Probed(probe):
                self._probed(probe)
                self._probe_or_score()
        return report

    def _of_server(self, report: Report) -> Report:
        if isinstance(report, protocol.Counted):
            self._know(work=report.work)
            self._tell(self.compare, protocol.Scored)
        return report

    def _are_known(self, checks: tuple[Check, ...]) -> bool:
        """Whether these are the checks of a trial that goes on, which had passed them before."""
        return (
            self.gate.place is Place.CHECKED and bool(self.earlier.checks) and all(c.passed for c in checks)
        )

    def _of_scorer(self, report: Report) -> None:
        if isinstance(report, protocol.Failed):
            raise Ended(report.state, report.error)
        if isinstance(report, protocol.Ready | protocol.Alive):
            return
        if type(report) is not self._awaited:
            raise TrialError(f"The scoring process said {type(report).__name__}, which it was not asked for.")
        self._awaited = None
        match report:
            case protocol.Measured(held_out):
                self._measured(held_out)
            case protocol.Answered():
                self._serve()
            case protocol.Scored(evaluation):
                self._know(evaluation=self._with_training(evaluation))
                self.is_done = True

    def _measured(self, held_out: HeldOut) -> None:
        if held_out.step != self._mark:
            raise TrialError(f"The scoring process measured at step {held_out.step}, not at {self._mark}.")
        self._know(held_out=(*self.evidence.held_out, held_out))
        self.gate.go_on()
        self.monitor.see_held_out(held_out)

    def _saved(self, step: int) -> None:
        """What training goes on from is fetched, and kept with what is known at this moment."""
        cut = resume.Cut(
            job=resume.digest(self.directory, self.job),
            step=step,
            seconds=self.monitor.seconds,
            held_out=self.evidence.held_out,
            checks=self.evidence.checks,
            wall_seconds=self._wall_seconds(),
            cpu_seconds=self._cpu_seconds(),
        )
        self._take(cut.file)
        self.watch.keep(self.directory, cut)

    def _trained(self, claims: Training) -> None:
        """The checkpoint is copied; counts and times are the engine's own."""
        for left_over in self.directory.glob(PROBE_FILES):  # of an earlier training
            left_over.unlink()
        self._take(CHECKPOINT_FILE)
        seconds, train = self._wall_seconds(), self.job.train
        tokens = train.steps * train.batch * train.context
        params = Weights(self.directory / CHECKPOINT_FILE, self.job.model).parameters()
        measured = msgspec.structs.replace(
            claims,
            params=params,
            steps=train.steps,
            tokens=tokens,
            seconds=seconds,
            tokens_per_second=tokens / seconds,
            step_seconds=self.monitor.seconds / train.steps,
            cpu_seconds=self._cpu_seconds(),
        )
        self._know(training=measured)
        most = self.watch.expected.most_parameters
        if most is not None and params > most:
            words = f"{params:,} elements in the checkpoint, buffers among them; at most {most:,} are allowed"
            check = Check("trained parameters", False, params, most, words)
            raise Ended(S.REJECTED, f"trained parameters: {words}", check)

    def _probed(self, name: str) -> None:
        """The weights at all marks of a probe are copied, before any of its tests is there."""
        for step in probes.PROBES[name].marks:
            self._take(probe_file(name, step))
            Weights(self.directory / probe_file(name, step), probes.MODEL)
        self._probe_seconds[name] = self.clock.now() - self._probe_began

    def _with_training(self, evaluation: Evaluation) -> Evaluation:
        """What each task took, with the training of probes, which the scorer does not see."""
        tasks = (
            msgspec.structs.replace(task, seconds=task.seconds + self._probe_seconds.get(task.task, 0.0))
            for task in evaluation.tasks
        )
        return msgspec.structs.replace(evaluation, tasks=tuple(tasks))

    def _probe_or_score(self) -> None:
        """The checkpoints are ours: whatever the trial answers from now on, it cannot change them."""
        self._probe_began = self.clock.now()
        if self.gate.place is not Place.ANSWERING:
            return
        self._tell(ScoreWhole(str(self.directory / CHECKPOINT_FILE)), protocol.Answered)

    def _serve(self) -> None:
        """The trial has answered everything and is ended, before anybody knows what will be compared. The
        server is asked for nothing until it has counted, so no count can carry held-out text."""
        job, train = self.job, self.job.train
        files = {ARCHITECTURE_FILE: self.directory / ARCHITECTURE_FILE, **_weights(self.directory)}
        self.trio.serve(ServeJob(job.vocab_size, job.device, job.model, train.context, train.threads), files)
        self.server_gate.begin()

    def _tell(self, command: protocol.Command, awaited: type[Report]) -> None:
        self.trio.tell(command)
        self._awaited = awaited

    def _take(self, name: str) -> None:
        self.trio.take(name, self.directory / name, self.clock.now)

    def _wall_seconds(self) -> float:
        """Seconds from the job to now. Where the engine was away, the trial may have worked on: it took no
        less than its processors did."""
        threads = self.job.train.threads or physical_cores()
        worked = max(self.clock.now(), self.trio.cpu_seconds() / threads)
        return max(self.earlier.wall_seconds + worked, LEAST_SECONDS)

    def _cpu_seconds(self) -> float:
        return self.earlier.cpu_seconds + self.trio.cpu_seconds()

    def _know(self, **found: object) -> None:
        self.evidence = msgspec.structs.replace(self.evidence, **found)
