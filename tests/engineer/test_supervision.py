"""Supervision by a scripted trio: what comes of what a trial says, and what its death means."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import pytest

from asi_lab import protocol
from asi_lab.common import cgroup, clock
from asi_lab.data.probes import PROBES
from asi_lab.engineer import resume, supervisor
from asi_lab.engineer.executor import Health, Source, Worker
from asi_lab.engineer.monitor import Expectations, Expected
from asi_lab.engineer.supervise import DRAWN, WORDS_FILE, Supervision, run
from asi_lab.errors import TrialError
from asi_lab.protocol import (
    PROBE_FILES,
    Command,
    Compare,
    Failed,
    MeasureMark,
    Report,
    ScoreJob,
    ScoreWhole,
    ServeJob,
    TrialJob,
    probe_file,
)
from asi_lab.records import CandidateState, Evidence, HeldOut, Work
from tests.engineer import scripts
from tests.engineer.scripts import (
    AGAIN,
    ANSWERED,
    BEGUN,
    CHECKS,
    COUNTED,
    LOADED,
    PREFLIGHTED,
    READY,
    SCORED,
    SERVED,
    TRAINED,
    TRAINING,
    TRIAL,
    WHOLE,
    job,
)
from tests.simulated_engine import weights

S = CandidateState
HEALTHY = Health("trial", None, None)
PARAMS = 1234
BEFORE = len(protocol.PREFLIGHT_CHECKS)


class Trio:
    """Reports what the script says, then is in the health given."""

    def __init__(self, script: list[scripts.Line], health: Health = HEALTHY, cpu: float = 0.0) -> None:
        self.script, self._health, self._cpu, self.finished = list(script), health, cpu, False
        self.files: Mapping[str, Path] = {}
        self.kept = False
        self.at_work: Worker = "trial"
        self.told: list[Command] = []
        self.served: ServeJob | None = None
        self.weights = weights(b"weights", PARAMS)

    def start(self, trial: TrialJob, score: ScoreJob | None, files: Mapping[str, Path]) -> None:
        self.files = files

    def tell(self, order: Command) -> None:
        self.told.append(order)

    def serve(self, job: ServeJob, files: Mapping[str, Path]) -> None:
        assert files["checkpoint.safetensors"].read_bytes() == self.weights
        self.at_work, self.served = "server", job

    def poll(self, seconds: float) -> list[tuple[Source, Report]]:
        return [self.script.pop(0)] if self.script else []

    def health(self) -> Health:
        found = HEALTHY if self.script else self._health
        return msgspec.structs.replace(found, at_work=self.at_work, cpu_seconds=self._cpu)

    def cpu_seconds(self) -> float:
        return self._cpu

    def said(self, source: Source) -> str:
        return f"last words of the {source}"

    def take(self, name: str, destination: Path, pulse: Callable[[], object]) -> None:
        destination.write_bytes(self.weights)

    def keep_compiled(self) -> None:
        self.kept = True

    def finish(self, directory: Path) -> None:
        self.finished = True


@pytest.fixture
def supervise(tmp_path, monkeypatch):
    """Run a scripted trial; the trio is left in `supervise.trio`."""
    monkeypatch.setattr(supervisor, "GRACE_SECONDS", 0.0)
    monkeypatch.setattr(supervisor, "LOOK_SECONDS", 0.0)

    def go(
        script,
        health: Health = HEALTHY,
        task="train",
        expected: Expectations | None = None,
        cut: resume.Cut | None = None,
        trusted=False,
        compare=DRAWN,
        cpu=0.0,
        weigh=None,
        before=None,
        probes=(),
        **limits,
    ):
        trio = go.trio = Trio(script, health, cpu)
        trio.weights = trio.weights if weigh is None else weigh
        (tmp_path / "architecture.py").write_text("code")
        (tmp_path / "checkpoint.safetensors").write_bytes(trio.weights)
        watch = Supervision(expected=expected or Expectations())
        try:
            return run(
                trio,
                msgspec.structs.replace(job(task, **limits), probes=probes),
                None,
                tmp_path,
                watch,
                before,
                cut,
                trusted=trusted,
                compare=compare,
            )
        finally:
            assert trio.finished
            assert trio.kept == (trusted and TRAINED in script)

    return go


def test_a_whole_trial(supervise, tmp_path):
    evidence = supervise(WHOLE)
    assert evidence.failure is None, evidence.error
    assert evidence.evaluation == SCORED[1].evaluation
    assert evidence.checks[:BEFORE] == CHECKS[1].checks
    assert [check.name for check in evidence.checks[BEFORE:]] == [check.name for check in AGAIN[1].checks]
    assert [held_out.step for held_out in evidence.held_out] == [*scripts.MARKS]
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == weights(b"weights", PARAMS)
    assert (evidence.training.steps, evidence.training.tokens) == (6, 126)


def test_full_rows_are_asked_for_once_all_probes_are_copied(supervise, tmp_path):
    (tmp_path / "probe_s3-7.safetensors").write_text("of an earlier training")
    probed = [("trial", protocol.Probed(name)) for name in ("probe_mqar", "probe_s3")]
    at = WHOLE.index(TRAINED) + 1
    evidence = supervise([*WHOLE[:at], *probed, *WHOLE[at:]], probes=("probe_mqar", "probe_s3"))
    assert evidence.failure is None, evidence.error
    assert isinstance(supervise.trio.told[2], ScoreWhole)
    files = {probe_file(p.name, s) for p in map(PROBES.get, ("probe_mqar", "probe_s3")) for s in p.marks}
    assert {path.name for path in tmp_path.glob(PROBE_FILES)} == files
    with pytest.raises(TrialError, match="not asked for"):
        supervise([*WHOLE[:at], *probed[:1], *WHOLE[at:]], probes=("probe_mqar", "probe_s3"))
    assert supervise.trio.told == [MeasureMark(2), MeasureMark(4)]


def test_the_engine_says_what_is_next(supervise, tmp_path):
    """Marks in their order; full rows after the checkpoint was copied; prefixes after the trial is dead."""
    supervise(WHOLE, compare=Compare(7, 5))
    checkpoint = ScoreWhole(str(tmp_path / "checkpoint.safetensors"))
    assert supervise.trio.told == [MeasureMark(2), MeasureMark(4), checkpoint, Compare(7, 5)]
    assert supervise.trio.at_work == "server"
    assert supervise.trio.served.vocab_size == 257
    supervise([READY, LOADED, *SERVED], task="serve")
    assert supervise.trio.told == [checkpoint, DRAWN]


def test_a_server_is_asked_for_nothing_before_it_has_counted(supervise):
    """So that a count can carry nothing of a held-out text."""
    assert supervise(WHOLE).work == COUNTED[1].work
    supervise(WHOLE[:-2], Health("server", 1, None))
    assert DRAWN not in supervise.trio.told
    supervise(WHOLE[:-1], Health("server", 1, None))
    assert supervise.trio.told[-1] == DRAWN


@pytest.mark.parametrize("lie", [Work(0.0, 1.0), Work(1.0, -1.0), Work(1e300, 1.0)])
def test_an_absurd_count_ends_as_forged(supervise, lie):
    evidence = supervise([*WHOLE[:-2], ("server", protocol.Counted(lie)), SCORED])
    assert evidence.failure is S.FORGED
    assert evidence.work is None
    twice = supervise([*WHOLE[:-1], COUNTED, SCORED])
    assert twice.failure is S.FORGED


def test_figures_are_the_engines_own(supervise):
    """Whatever the trial claims of steps, tokens, time and parameters."""
    training = supervise(WHOLE, cpu=3.0).training
    assert training.params == PARAMS
    assert 1e-3 <= training.seconds < 60
    assert training.tokens_per_second == 126 / training.seconds
    assert training.cpu_seconds == 3.0
    assert training.train_loss == scripts.CLAIMS.train_loss


def test_time_that_the_engine_slept_through_counts_by_the_processors(supervise, monkeypatch):
    """It was away while the trial worked on: a minute of one thread is a minute."""
    monkeypatch.setattr(clock, "LONGEST_GAP", -1.0)  # every look comes after an absence
    training = supervise(WHOLE, cpu=60.0).training
    threads = scripts.MICRO.train.threads
    assert training.seconds == 60.0 / threads


def test_what_a_run_that_was_cut_off_took_counts(supervise):
    cut = resume.Cut("", 4, 50.0, (HeldOut(2, 4.5), HeldOut(4, 4.5)), wall_seconds=70.0, cpu_seconds=90.0)
    training = supervise(
        [*BEGUN, *scripts.steps(after=4), AGAIN, TRAINED, *SERVED], task="resume", cut=cut, cpu=3.0
    ).training
    assert 70.0 < training.seconds < 130.0
    assert training.cpu_seconds == 93.0
    assert training.step_seconds == pytest.approx(50.0 / 6, rel=0.1)


def test_checks_that_were_passed_before_the_cut_are_kept_as_they_were(supervise):
    """Made again they are a process's that may know held-out text, of whose words nothing is kept."""
    first = tuple(
        msgspec.structs.replace(check, detail="as measured", value=0.5) for check in CHECKS[1].checks
    )
    cut = resume.Cut("", 4, 50.0, (HeldOut(2, 4.5), HeldOut(4, 4.5)), checks=first)
    script = [*BEGUN, *scripts.steps(after=4), AGAIN, TRAINED, *SERVED]
    evidence = supervise(script, task="resume", cut=cut, before=Evidence(first))
    assert evidence.checks[: len(first)] == first
    assert [check.name for check in evidence.checks[len(first) :]] == [c.name for c in AGAIN[1].checks]


def test_more_parameters_than_allowed_are_rejected_however_they_are_hidden(supervise):
    expected = Expectations(most_parameters=PARAMS - 1)
    evidence = supervise(WHOLE, expected=expected)
    assert evidence.failure is S.REJECTED
    assert "1,234 elements in the checkpoint" in evidence.error
    assert evidence.checks[-1].name == "trained parameters"
    assert supervise(WHOLE, expected=Expectations(most_parameters=PARAMS)).failure is None


@pytest.mark.parametrize(
    "content", [b"", b"x", b"\xff" * 64, weights(b"", 4)[:-1], weights(b"", 4) + b"more"]
)
def test_a_checkpoint_that_is_none_is_forged(supervise, content):
    evidence = supervise(WHOLE, weigh=content)
    assert evidence.failure is S.FORGED
    assert evidence.training is None


def test_more_processor_time_than_allowed_ends_a_trial(supervise):
    expected = Expectations(most_cpu_seconds=300.0)
    evidence = supervise(BEGUN, expected=expected, cpu=301.0)
    assert evidence.failure is S.SLOW
    assert evidence.checks[-1].name == "processor_time"
    cut = resume.Cut("", 1, 1.0, (), cpu_seconds=290.0)
    assert supervise(BEGUN, expected=expected, cpu=11.0, task="resume", cut=cut).failure is S.SLOW


def test_a_report_that_cannot_be_is_forged_and_nobody_repairs_it(supervise):
    from asi_lab.engineer import repair

    evidence = supervise([READY, TRAINED, ANSWERED, SCORED])
    assert evidence.failure is S.FORGED
    assert evidence.error.startswith("the trial cannot be believed: it said Trained when it was checking")
    assert evidence.training is None
    assert evidence.evaluation is None
    assert S.FORGED not in repair.ROLES


def test_the_words_of_a_failure_stay_in_the_directory_once_held_out_text_was_shown(supervise, tmp_path):
    failed = ("trial", Failed(S.BROKEN, "secret words"))
    assert supervise([*BEGUN, failed]).error == "secret words"
    assert not (tmp_path / WORDS_FILE).exists()
    evidence = supervise([*BEGUN, *scripts.steps()[:5], failed])
    assert evidence.error == "broken after 3 steps"
    assert (tmp_path / WORDS_FILE).read_text() == "secret words"
    dead = Health("trial", exit=1, scorer_exit=None, said_all=True)
    assert "last words of the trial" in supervise(BEGUN, dead).error
    assert "last words" not in supervise([*BEGUN, *scripts.steps()[:5]], dead).error
    assert (
        "last words"
        not in supervise([READY, LOADED, ANSWERED, ("server", protocol.Ready())], dead, "serve").error
    )


@pytest.mark.parametrize(
    "script",
    [
        [READY, ("scorer", protocol.Answered())],
        [*BEGUN, *scripts.mark(2)[1:]],
        [*BEGUN, *scripts.steps()[:3], ("scorer", protocol.Measured(HeldOut(4, 4.5)))],
        [*TRIAL[:-2], SCORED, AGAIN, TRAINED, *SERVED],
        [*TRIAL, SCORED],
        [*WHOLE[:-1], ANSWERED],
    ],
    ids=[
        *("answered before it was asked", "measured before", "measured elsewhere"),
        *("scored before it was trained", "scored before it was compared", "answered twice"),
    ],
)
def test_what_the_scorer_was_not_asked_for_is_our_fault(supervise, script):
    with pytest.raises(TrialError, match="scoring process"):
        supervise(script)


def test_what_trusted_code_compiled_is_kept(supervise):
    assert supervise(WHOLE, trusted=True).failure is None


KILLED = Health("trial", exit=-signal.SIGKILL, scorer_exit=None, said_all=True)


def test_a_checkpoint_is_kept_until_training_is_over_or_fails(supervise, tmp_path):
    """And of several the last one; a trial that was cut off keeps it."""
    begun = [*BEGUN, *scripts.steps(saves=(3, 5))[:-1]]
    evidence = supervise(begun, KILLED)
    assert evidence.failure is S.INTERRUPTED
    assert sorted(path.name for path in tmp_path.glob("resume*")) == ["resume-5.pt", "resume.json"]
    cut = msgspec.json.decode((tmp_path / resume.RECORD_FILE).read_bytes(), type=resume.Cut)
    assert [held_out.step for held_out in cut.held_out] == [2, 4]
    assert cut.wall_seconds > 0
    diverged = [*begun, ("trial", Failed(S.DIVERGED, "step 6"))]
    assert supervise(diverged).failure is S.DIVERGED
    assert list(tmp_path.glob("resume*")) == []
    assert supervise([*BEGUN, *scripts.steps(saves=(3, 5)), AGAIN, TRAINED, *SERVED]).failure is None
    assert list(tmp_path.glob("resume*")) == []


def test_it_goes_on_for_the_same_job_alone(tmp_path):
    (tmp_path / "architecture.py").write_text("code")
    same = job()
    assert resume.find(tmp_path, same) is None
    (tmp_path / "resume-5.pt").write_bytes(b"state")
    cut = resume.Cut(resume.digest(tmp_path, same), 5, 2.0, ())
    resume.keep(tmp_path, cut)
    assert resume.find(tmp_path, same) == cut
    elsewhere = msgspec.structs.replace(same, data="/elsewhere", device="cuda", task="resume")
    assert resume.find(tmp_path, elsewhere) == cut
    assert resume.find(tmp_path, job(steps=999)) is None
    (tmp_path / "architecture.py").write_text("repaired code")
    assert resume.find(tmp_path, same) is None
    (tmp_path / "architecture.py").write_text("code")
    (tmp_path / resume.RECORD_FILE).write_text('{"job": ')
    assert resume.find(tmp_path, same) is None
    resume.keep(tmp_path, cut)
    (tmp_path / "resume-5.pt").unlink()
    assert resume.find(tmp_path, same) is None


def test_checks_alone_end_with_the_checks(supervise):
    evidence = supervise([READY, CHECKS, PREFLIGHTED, TRAINING], task="check")
    assert evidence.failure is None
    assert evidence.checks == CHECKS[1].checks


@pytest.mark.parametrize("number", [signal.SIGSEGV, 32, 40, 64])
def test_a_signal_ends_the_candidate_whatever_its_number(supervise, number):
    evidence = supervise(BEGUN, Health("trial", exit=-number, scorer_exit=None, said_all=True))
    assert evidence.failure is S.BROKEN
    assert "was ended by signal" in evidence.error


@pytest.mark.parametrize("code", [-signal.SIGKILL, -signal.SIGTERM])
@pytest.mark.parametrize("script", [[READY, CHECKS], TRIAL, WHOLE[:-1]])
def test_a_process_that_was_killed_from_outside_is_interrupted(supervise, script, code):
    for health in (Health("trial", code, None, said_all=True), Health("trial", None, code)):
        evidence = supervise(script, health)
        assert evidence.failure is S.INTERRUPTED
        assert signal.Signals(-code).name in evidence.error
        assert evidence.checks[:BEFORE] == CHECKS[1].checks


@pytest.mark.parametrize(
    ("kills", "resident", "group", "state", "words"),
    [
        (
            1,
            3.9,
            math.inf,
            S.OUT_OF_MEMORY,
            "the trial was ended by the kernel for want of memory on this machine: ",
        ),
        (
            1,
            0.1,
            math.inf,
            S.INTERRUPTED,
            "for want of memory on this machine: it held 0.1 GB when last seen",
        ),
        (0, 3.9, math.inf, S.INTERRUPTED, "the trial was ended by signal SIGKILL"),
        (
            1,
            0.9,
            1.0,
            S.OUT_OF_MEMORY,
            "for want of memory of the 1.0 GB of this control group: it held 0.9 GB",
        ),
        (
            1,
            0.4,
            1.0,
            S.INTERRUPTED,
            "for want of memory of the 1.0 GB of this control group: it held 0.4 GB",
        ),
    ],
    ids=[
        "it was greedy",
        "others were greedy",
        "not the kernel",
        "greedy in a small group",
        "others in a group",
    ],
)
def test_a_kill_by_the_kernel_is_out_of_memory_if_the_trial_was_greedy(
    supervise, monkeypatch, kills, resident, group, state, words
):
    counter = iter([5, 5 + kills])
    monkeypatch.setattr(supervisor, "_kernel_kills", lambda groups: next(counter))
    monkeypatch.setattr(cgroup.Groups, "memory_bytes", lambda self: group * 2**30)
    alive = Health("trial", None, None, resident_bytes=int(resident * 2**30))
    health = iter([alive, KILLED])
    monkeypatch.setattr(Trio, "health", lambda self: next(health))
    evidence = supervise([READY], memory_gb=4.0)
    assert evidence.failure is state
    assert words in evidence.error


def test_a_trial_that_never_came_up_is_no_fault_of_the_candidate(supervise):
    with pytest.raises(TrialError, match=r"could not be started[^$]*last words of the trial"):
        supervise([], Health("trial", 1, None))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_trial_that_was_killed_before_it_came_up_is_begun_again(supervise, number):
    assert supervise([], Health("trial", -number, None)).failure is S.INTERRUPTED


def test_a_scorer_that_broke_is_no_fault_of_the_candidate(supervise):
    with pytest.raises(TrialError, match="was not judged"):
        supervise([READY], Health("trial", None, 1))


def test_one_that_lives_and_cannot_be_scored_is_forged(supervise):
    assert supervise(TRIAL, Health("trial", None, protocol.TRIAL_UNUSABLE)).failure is S.FORGED
    served = WHOLE[:-1]
    assert supervise(served, Health("server", None, protocol.SERVER_UNUSABLE)).failure is S.FORGED
    assert supervise(TRIAL, Health("trial", 1, protocol.TRIAL_UNUSABLE)).failure is S.FORGED
    killed = Health("trial", -signal.SIGKILL, protocol.TRIAL_UNUSABLE)  # in the middle of an answer
    assert supervise(TRIAL, killed).failure is S.INTERRUPTED


@pytest.mark.parametrize(
    ("health", "state", "words"),
    [
        (
            Health("trial", None, None, resident_bytes=5 * 2**30),
            S.OUT_OF_MEMORY,
            "5.0 GB in memory, limit 4 GB",
        ),
        (Health("trial", None, None, printed_bytes=20 * 2**20), S.BROKEN, "printed more than 16 MB"),
        (Health("trial", None, None, written_bytes=3 * 2**30), S.BROKEN, "wrote 3.0 GB to disk, limit 1 GB"),
        (Health("trial", None, None, written_bytes=float("inf")), S.BROKEN, "wrote inf GB"),
        (Health("trial", None, None, processes=513), S.BROKEN, "513 processes at once, limit 512"),
    ],
)
def test_limits_end_a_trial(supervise, health, state, words):
    evidence = supervise([READY], health)
    assert evidence.failure is state
    assert words in evidence.error


def test_time_limits_end_a_trial(supervise):
    assert "in all" in supervise([READY], trial_seconds=1e-3).error
    silent = supervise([READY], stall_seconds=1e-3)
    assert silent.failure is S.TIMED_OUT
    assert "silent" in silent.error


class Time:
    """A monotonic clock that goes on by so many seconds at each look."""

    def __init__(self, step: float) -> None:
        self.now, self.step = 0.0, step

    def monotonic(self) -> float:
        self.now += self.step
        return self.now


def test_what_lies_in_the_pipes_counts_before_a_deadline_does(supervise, monkeypatch):
    """The engine was slow to read; every look takes a second, and the whole trial was to take five."""
    monkeypatch.setattr(clock, "time", Time(1.0))
    evidence = supervise(WHOLE, trial_seconds=5.0, stall_seconds=2.0)
    assert evidence.failure is None, evidence.error
    assert supervise([READY], trial_seconds=5.0).failure is S.TIMED_OUT


def test_deadlines_stand_still_while_the_engine_is_away(supervise, monkeypatch):
    """Stopped for a day between any two looks, as by Ctrl+Z or a closed lid."""
    monkeypatch.setattr(clock, "time", Time(86_400.0))
    assert supervise(WHOLE, trial_seconds=60.0, stall_seconds=10.0).failure is None


def test_pruning_ends_the_training_at_its_mark(supervise):
    expected = Expectations({2: Expected(5.0, 0.01), 4: Expected(1.0, 0.01)}, prune_above={2: 1e9, 4: 2.0})
    evidence = supervise(WHOLE, expected=expected)
    assert evidence.failure is S.PRUNED
    assert [held_out.step for held_out in evidence.held_out] == [2, 4]
    assert evidence.checks[-1].name == "pruning"
    assert evidence.training is None


def test_divergence_ends_the_training_with_its_evidence(supervise, monkeypatch):
    monkeypatch.setattr("asi_lab.engineer.monitor.SETTLED_POINTS", 2)
    rising = [scripts.progress(step, loss=3.0 + 10 * step) for step in (1, 2)]
    evidence = supervise([*BEGUN, *rising, *scripts.mark(2), scripts.progress(3, loss=99.0)])
    assert evidence.failure is S.DIVERGED
    assert evidence.checks[-1].name == "divergence"
    assert evidence.error.startswith("divergence: step")


def test_a_full_disk_is_not_blamed_on_the_candidate(supervise, monkeypatch):
    monkeypatch.setattr(supervisor, "LEAST_FREE_BYTES", 2**62)
    with pytest.raises(TrialError, match="Free some space"):
        supervise([READY, ("trial", Failed(S.BROKEN, "no space left"))])


def test_who_filled_the_disk_is_to_blame(supervise, monkeypatch):
    monkeypatch.setattr(supervisor, "LEAST_FREE_BYTES", 2**62)
    greedy = Health("trial", None, None, written_bytes=2**62)
    monkeypatch.setattr(supervisor.Supervisor, "enforce", lambda *_, **__: None)  # its limit is larger still
    assert supervise([READY, ("trial", Failed(S.BROKEN, "no space left"))], greedy).failure is S.BROKEN
