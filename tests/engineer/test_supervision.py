"""Supervision by a scripted pair: what a trial may report, and what its death means."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from asi_lab.config import from_preset
from asi_lab.engineer import monitor, resume
from asi_lab.engineer import run as supervision
from asi_lab.engineer.executor import Health, Source
from asi_lab.engineer.monitor import Expectations, Expected
from asi_lab.engineer.run import Watch, run
from asi_lab.errors import TrialError
from asi_lab.protocol import (
    Checked,
    Compiled,
    Failed,
    Measured,
    Progress,
    Ready,
    Report,
    Saved,
    Scored,
    ScoreJob,
    Stage,
    Trained,
    TrialJob,
)
from asi_lab.records import CandidateState, Check, Evaluation, HeldOut, Training

S = CandidateState
MICRO = from_preset("micro")
READY = ("trial", Ready())
CHECKS = ("trial", Checked((Check("causality", True),)))
PREFLIGHTED, TRAINING = ("trial", Stage(S.PREFLIGHTED)), ("trial", Stage(S.TRAINING))
TRAINED = ("trial", Trained(Training(1000, 500, 9, 9, 0.1, 1e-6, 1e9, 1.0)))
SCORED = ("scorer", Scored(Evaluation(4.0, 100, (), 0.0, 8, 0.1)))
WHOLE = [READY, CHECKS, PREFLIGHTED, TRAINING, TRAINED, SCORED]
HEALTHY = Health(None, None)


class Pair:
    """Reports what the script says, then is in the health given."""

    def __init__(self, script: list[tuple[Source, Report]], health: Health = HEALTHY) -> None:
        self.script, self._health, self.finished = list(script), health, False
        self.files: Mapping[str, Path] = {}
        self.kept = False

    def start(self, trial: TrialJob, score: ScoreJob | None, files: Mapping[str, Path]) -> None:
        self.files = files

    def poll(self, seconds: float) -> list[tuple[Source, Report]]:
        return [self.script.pop(0)] if self.script else []

    def health(self) -> Health:
        return HEALTHY if self.script else self._health

    def said(self, source: Source) -> str:
        return f"last words of the {source}"

    def take(self, name: str, destination: Path) -> None:
        destination.write_bytes(b"weights")

    def keep_compiled(self) -> None:
        self.kept = True

    def finish(self, directory: Path) -> None:
        self.finished = True


@pytest.fixture
def supervise(tmp_path, monkeypatch):
    monkeypatch.setattr(supervision, "GRACE_SECONDS", 0.0)
    monkeypatch.setattr(supervision, "LOOK_SECONDS", 0.0)

    def go(
        script,
        health: Health = HEALTHY,
        task="train",
        expected: Expectations | None = None,
        cut: resume.Cut | None = None,
        trusted=False,
        **limits,
    ):
        limits = msgspec.structs.replace(MICRO.limits, **limits)
        job = TrialJob(task, "", 257, 0, 0, "cpu", MICRO.model, MICRO.train, limits)
        pair = Pair(script, health)
        (tmp_path / "architecture.py").write_text("code")
        watch = Watch(expected=expected or Expectations())
        try:
            return run(pair, job, None, tmp_path, watch, cut=cut, trusted=trusted)
        finally:
            assert pair.finished
            assert pair.kept == (trusted and TRAINED in script)

    return go


def test_a_whole_trial(supervise, tmp_path):
    evidence = supervise(WHOLE)
    assert evidence.failure is None
    assert evidence.evaluation == SCORED[1].evaluation
    assert evidence.checks == CHECKS[1].checks
    assert (tmp_path / "checkpoint.pt").read_bytes() == b"weights"
    train = MICRO.train
    assert evidence.training.steps == train.steps
    assert evidence.training.tokens == train.steps * train.batch * train.context


def test_what_trusted_code_compiled_is_kept(supervise):
    assert supervise(WHOLE, trusted=True).failure is None


SAVED = ("trial", Saved(5))


def test_a_checkpoint_is_kept_until_training_is_over_or_fails(supervise, tmp_path):
    """And of several the last one; a trial that was cut off keeps it."""
    cut_off = Health(trial_exit=-9, scorer_exit=None, said_all=True)
    begun = [READY, CHECKS, PREFLIGHTED, TRAINING, SAVED, ("trial", Saved(7))]
    evidence = supervise(begun, cut_off)
    assert evidence.failure is S.INTERRUPTED
    assert sorted(path.name for path in tmp_path.glob("resume*")) == ["resume-7.pt", "resume.json"]
    diverged = [*begun, ("trial", Failed(S.DIVERGED, "step 8"))]
    assert supervise(diverged).failure is S.DIVERGED
    assert list(tmp_path.glob("resume*")) == []
    assert supervise([*begun, TRAINED, SCORED]).failure is None
    assert list(tmp_path.glob("resume*")) == []


def test_it_goes_on_for_the_same_job_alone(supervise, tmp_path):
    (tmp_path / "architecture.py").write_text("code")
    job = TrialJob("train", "", 257, 0, 0, "cpu", MICRO.model, MICRO.train, MICRO.limits)
    assert resume.find(tmp_path, job) is None
    (tmp_path / "resume-5.pt").write_bytes(b"state")
    cut = resume.Cut(resume.digest(tmp_path, job), 5, 2.0, ())
    resume.keep(tmp_path, cut)
    assert resume.find(tmp_path, job) == cut
    elsewhere = msgspec.structs.replace(job, data="/elsewhere", device="cuda", task="resume")
    assert resume.find(tmp_path, elsewhere) == cut
    longer = msgspec.structs.replace(job, train=msgspec.structs.replace(job.train, steps=999))
    assert resume.find(tmp_path, longer) is None
    (tmp_path / "architecture.py").write_text("repaired code")
    assert resume.find(tmp_path, job) is None
    (tmp_path / "architecture.py").write_text("code")
    (tmp_path / resume.RECORD_FILE).write_text('{"job": ')
    assert resume.find(tmp_path, job) is None
    resume.keep(tmp_path, cut)
    (tmp_path / "resume-5.pt").unlink()
    assert resume.find(tmp_path, job) is None


@pytest.mark.parametrize(
    ("script", "step"),
    [([READY, CHECKS, SAVED], 5), ([READY, CHECKS, PREFLIGHTED, TRAINING, ("trial", Saved(10**6))], 10**6)],
)
def test_an_impossible_checkpoint_is_broken(supervise, script, step):
    evidence = supervise(script)
    assert evidence.failure is S.BROKEN
    assert f"claims a checkpoint after {step} steps" in evidence.error


def test_the_clock_goes_on_and_leaves_compilation_out(supervise, monkeypatch):
    """100 s of compilation and 4 s of training after 50 s of an earlier run."""
    times = iter([0.0, 100.0, 104.0])
    monkeypatch.setattr(monitor, "time", SimpleNamespace(monotonic=lambda: next(times)))
    compiled = ("trial", Compiled(100.0))
    point = ("trial", Progress(320, 320, 1, 4.0, 1e-3, 1.0, 1.0))
    script = [READY, CHECKS, PREFLIGHTED, TRAINING, compiled, point, TRAINED, SCORED]
    monkeypatch.setattr(monitor.Monitor, "tick", lambda self: None)
    evidence = supervise(script, cut=resume.Cut("", 5, 50.0, ()))
    assert evidence.training.seconds == 54.0


def test_checks_alone_end_with_the_checks(supervise):
    evidence = supervise([READY, CHECKS, PREFLIGHTED, TRAINING], task="check")
    assert evidence.failure is None
    assert evidence.checks == CHECKS[1].checks


def test_what_only_the_scorer_may_say_is_not_taken_from_the_trial(supervise):
    forged = [
        ("trial", Scored(Evaluation(0.001, 1, (), 0.0, 99, 0.1))),
        ("trial", Measured(HeldOut(3, 0.1, 0.0, 0.1))),
    ]
    evidence = supervise([READY, CHECKS, PREFLIGHTED, *forged, TRAINING, *forged, TRAINED, SCORED])
    assert evidence.evaluation.loss == 4.0
    assert evidence.held_out == ()


@pytest.mark.parametrize(
    "script",
    [
        [READY, ("trial", Stage(S.DONE))],
        [READY, TRAINING],
        [READY, CHECKS, PREFLIGHTED, PREFLIGHTED],
        [READY, CHECKS, PREFLIGHTED, TRAINED],
        [
            READY,
            CHECKS,
            PREFLIGHTED,
            TRAINING,
            ("trial", Trained(msgspec.structs.replace(TRAINED[1].training, params=0))),
        ],
    ],
    ids=["a state", "a stage too early", "a stage twice", "a training", "no parameters"],
)
def test_forged_progress_is_broken(supervise, script):
    evidence = supervise(script)
    assert evidence.failure is S.BROKEN
    assert evidence.error.startswith("The trial claims to be")


@pytest.mark.parametrize("state", [S.DONE, S.DUPLICATE, S.INTERRUPTED, S.SUSPECT, S.PRUNED, S.TIMED_OUT])
def test_a_trial_can_only_report_ends_of_its_own(supervise, state):
    assert supervise([READY, ("trial", Failed(state, "so it says"))]).failure is S.BROKEN
    assert supervise([READY, ("trial", Failed(S.LEAKING, "so it says"))]).failure is S.LEAKING
    assert supervise([READY, ("scorer", Failed(S.LEAKING, "so it is"))]).failure is S.LEAKING


@pytest.mark.parametrize("code", [-signal.SIGKILL, -signal.SIGTERM])
def test_a_process_that_was_killed_from_outside_is_interrupted(supervise, code):
    for health in (Health(code, None), Health(None, code)):
        evidence = supervise([READY, CHECKS], health)
        assert evidence.failure is S.INTERRUPTED
        assert signal.Signals(-code).name in evidence.error
        assert evidence.checks == CHECKS[1].checks


@pytest.mark.parametrize(
    ("kills", "resident", "state"),
    [(1, 3.9, S.OUT_OF_MEMORY), (1, 0.1, S.INTERRUPTED), (0, 3.9, S.INTERRUPTED)],
    ids=["it was greedy", "others were greedy", "not the kernel"],
)
def test_a_kill_by_the_kernel_is_out_of_memory_if_the_trial_was_greedy(
    supervise, monkeypatch, kills, resident, state
):
    counter = iter([5, 5 + kills])
    monkeypatch.setattr(supervision, "_kernel_kills", lambda: next(counter))
    alive, dead = Health(None, None, trial_bytes=int(resident * 2**30)), Health(-signal.SIGKILL, None)

    health = iter([alive, dead])
    monkeypatch.setattr(Pair, "health", lambda self: next(health))
    assert supervise([READY], memory_gb=4.0).failure is state


def test_a_trial_that_never_came_up_is_no_fault_of_the_candidate(supervise):
    with pytest.raises(TrialError, match=r"could not be started[^$]*last words of the trial"):
        supervise([], Health(1, None))


def test_a_scorer_that_broke_is_no_fault_of_the_candidate(supervise):
    with pytest.raises(TrialError, match="was not judged"):
        supervise([READY], Health(None, 1))
    assert supervise([READY], Health(None, 3)).failure is S.BROKEN


@pytest.mark.parametrize(
    ("health", "state", "words"),
    [
        (Health(None, None, trial_bytes=5 * 2**30), S.OUT_OF_MEMORY, "5.0 GB resident, limit 4 GB"),
        (Health(None, None, printed_bytes=20 * 2**20), S.BROKEN, "printed more than 16 MB"),
        (Health(None, None, written_bytes=3 * 2**30), S.BROKEN, "wrote 3.0 GB to disk, limit 1 GB"),
        (Health(None, None, written_bytes=float("inf")), S.BROKEN, "wrote inf GB"),
        (Health(None, None, processes=513), S.BROKEN, "513 processes at once, limit 512"),
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


def test_pruning_ends_the_training_at_its_mark(supervise):
    marks = {3: Expected(5.0, 0.01), 6: Expected(1.0, 0.01)}
    expected = Expectations(marks, prune_above={3: 1e9, 6: 2.0})
    curve = [("scorer", Measured(HeldOut(step, 4.9, 0.0, 0.1))) for step in (3, 6)]
    evidence = supervise([*WHOLE[:4], *curve, TRAINED, SCORED], expected=expected)
    assert evidence.failure is S.PRUNED
    assert [held_out.step for held_out in evidence.held_out] == [3, 6]
    assert evidence.checks[-1].name == "pruning"
    assert evidence.training is None


def test_divergence_ends_the_training_with_its_evidence(supervise):
    curve = [("trial", Progress(step, 320, step, 3.0 + step / 10, 1e-3, 1.0, 1.0)) for step in range(1, 60)]
    evidence = supervise([*WHOLE[:4], *curve])
    assert evidence.failure is S.DIVERGED
    assert evidence.checks[-1].name == "divergence"
    assert evidence.error.startswith("divergence: step")


def test_a_full_disk_is_not_blamed_on_the_candidate(supervise, monkeypatch):
    monkeypatch.setattr(supervision, "LEAST_FREE_BYTES", 2**62)
    with pytest.raises(TrialError, match="Free some space"):
        supervise([READY, ("trial", Failed(S.BROKEN, "no space left"))])
