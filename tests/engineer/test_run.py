"""Real trials: a trial process and a scorer on a small lab, with sound, broken and hostile candidates."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import psutil
import pytest

from asi_lab import config, protocol, references, sandbox
from asi_lab.data.manifest import load_manifest
from asi_lab.data.prepare import prepare
from asi_lab.engineer.executor import LocalExecutor
from asi_lab.engineer.monitor import Expectations
from asi_lab.engineer.run import Watch, run
from asi_lab.errors import TrialError
from asi_lab.protocol import ScoreJob, TrialJob
from asi_lab.records import CandidateState, Evidence
from asi_lab.settings import Settings

S = CandidateState
GOOD = references.source("delta_net")
CANARY = "sk-canary-0123456789"
MARKS = (3, 6)

LAB = """preset = "micro"
[data]
source = "text:{text}"
tokenizer = "byte"
[model]
layers = 1
width = 16
[train]
steps = 12
batch = 4
micro_batch = 4
context = 56
warmup_steps = 2
[evaluate]
tasks = ["asi_recall", "asi_copy"]
limit = 8
batch = 8
loss_tokens = 1024
max_length = 256
prefix_checks = 8
marks = [0.25, 0.5]
mark_tokens = 512
[limits]
trial_seconds = 60
stall_seconds = 50
memory_gb = 1.5
log_mb = 0.5
disk_gb = 0.05
processes = 64
"""


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> Settings:
    rng = random.Random(0)
    words = [f"{a}{b}" for a in ("lin", "del", "gat", "rec") for b in ("ear", "ta", "ed", "all", "ur")]
    paragraphs = [" ".join(rng.choice(words) for _ in range(300)) + "." for _ in range(60)]
    text = tmp_path_factory.mktemp("text") / "text.txt"
    text.write_text("\n\n".join(paragraphs))
    return config.parse(LAB.format(text=text))


@pytest.fixture(scope="module")
def data(tmp_path_factory, settings) -> Path:
    folder = tmp_path_factory.mktemp("lab") / "data"
    prepare(settings.data, folder)
    subprocess.run(
        [sys.executable, "-m", "asi_lab.evaluate.tasks", str(folder), "0", str(settings.evaluate.limit)],
        check=True,
    )
    return folder


@pytest.fixture(scope="module")
def executor(tmp_path_factory, data, settings):
    os.environ["OPENAI_API_KEY"] = CANARY
    confinement = sandbox.choose("auto", sandbox.probe())
    executor = LocalExecutor(tmp_path_factory.mktemp("waiting"), confinement, data, settings)
    executor.prepare()
    yield executor
    executor.close()
    del os.environ["OPENAI_API_KEY"]


@pytest.fixture
def trial(executor, settings, data, tmp_path):
    def go(
        code: str,
        task: str = "train",
        before: Evidence | None = None,
        expected: Expectations = Expectations(),  # noqa: B008  immutable
        suspect_below: dict[int, float] | None = None,
        tick=lambda: None,
        rules: dict[str, float] | None = None,
        **limits: float,
    ):
        (tmp_path / "architecture.py").write_text(code)
        job = TrialJob(
            task=task,
            data=str(data),
            vocab_size=load_manifest(data).vocab_size,
            seed=1,
            data_seed=0,
            device="cpu",
            model=settings.model,
            train=settings.train,
            limits=msgspec.structs.replace(settings.limits, **limits),
            marks=MARKS,
        )
        evaluate, context = settings.evaluate, settings.train.context
        score = ScoreJob(str(data), 0, "cpu", context, evaluate, suspect_below or {}, 1)
        reports: list[protocol.Report] = []
        pair = executor.take()
        executor.prepare()
        supervise = msgspec.structs.replace(settings.supervise, **(rules or {}))
        watch = Watch(supervise, expected, lambda report, evidence: reports.append(report), tick)
        evidence = run(pair, job, score, tmp_path, watch, before)
        return evidence, reports, (tmp_path / "trial.log").read_text()

    return go


def spiked(line: str, where: str = "        x = hidden_states\n") -> str:
    """The good architecture with one more line in `forward`."""
    assert where in GOOD
    return "import os, sys, time\n" + GOOD.replace(where, f"{where}        {line}\n")


def test_a_sound_candidate_is_measured_and_again_the_same(trial):
    first, reports, _ = trial(GOOD)
    assert first.failure is None
    assert first.evaluation is not None
    assert first.training is not None
    assert {task.task for task in first.evaluation.tasks} == {"asi_recall", "asi_copy"}
    assert 0 < first.evaluation.loss < 7
    assert first.evaluation.prefix_positions >= 8
    assert first.evaluation.prefix_error < 1e-3
    assert all(check.passed for check in first.checks)
    steps = [report.step for report in reports if isinstance(report, protocol.Progress)]
    assert steps == list(range(1, 13))
    assert [held_out.step for held_out in first.held_out] == list(MARKS)
    assert all(held_out.loss > first.evaluation.loss for held_out in first.held_out)
    assert {"trained batch", "trained causality", "trained statistics"} <= {c.name for c in first.checks}
    second, _, _ = trial(GOOD)
    assert second.evaluation.loss == first.evaluation.loss
    assert second.evaluation.tasks == first.evaluation.tasks
    assert [h.loss for h in second.held_out] == [h.loss for h in first.held_out]
    # a trial that was cut off after training is only evaluated
    before = msgspec.structs.replace(second, evaluation=None)
    third, reports, _ = trial(GOOD, task="serve", before=before)
    assert not any(isinstance(report, protocol.Progress) for report in reports)
    assert third.evaluation.loss == first.evaluation.loss
    assert third.training == second.training
    assert third.checks == second.checks


def test_an_exception_is_broken_with_its_line(trial):
    code = spiked("undefined_name + 1")
    evidence, _, _ = trial(code)
    assert evidence.failure is S.BROKEN
    assert "undefined_name" in evidence.error
    assert "architecture.py" in evidence.error
    failed = [check for check in evidence.checks if not check.passed]
    assert failed[0].line == code.splitlines().index("        undefined_name + 1") + 1


def test_a_leak_at_the_start_is_caught_before_training(trial):
    evidence, reports, _ = trial(spiked("x = x + 0.1 * x.flip(1)"))
    assert evidence.failure is S.LEAKING
    assert evidence.error.startswith("causality")
    assert not any(isinstance(report, protocol.Progress) for report in reports)


def test_a_leak_that_opens_after_the_checks_is_caught_on_the_trained_model(trial):
    """The future comes in once the layer has seen as many batches as training has."""
    code = GOOD.replace(
        "        return y, None",
        "        if self.training and x.shape[:2] == (4, 56):\n"
        "            DeltaNet.steps = getattr(DeltaNet, 'steps', 0) + 1\n"
        "        if getattr(DeltaNet, 'steps', 0) >= 12:\n"
        "            y = y + 0.1 * hidden_states.roll(-1, 1)\n"
        "        return y, None",
    )
    evidence, reports, _ = trial(code)
    assert evidence.failure is S.LEAKING
    assert evidence.error.startswith("trained causality")
    assert any(isinstance(report, protocol.Progress) for report in reports)
    assert not any(isinstance(report, protocol.Trained) for report in reports)


def test_a_leak_that_hides_from_the_trial_is_caught_by_the_scorer(trial):
    """Candidate code that knows when it is checked can deceive the trial, not the scorer's prefix checks."""
    code = GOOD.replace(
        "        return y, None",
        "        import sys\n"
        "        frame, served = sys._getframe(), False\n"
        "        while frame is not None:\n"
        "            served = served or frame.f_code.co_name == 'serve'\n"
        "            frame = frame.f_back\n"
        "        if served:\n"
        "            y = y + 0.1 * hidden_states.roll(-1, 1)\n"
        "        return y, None",
    )
    evidence, reports, _ = trial(code)
    assert evidence.failure is S.LEAKING
    assert "tokens after it are taken away" in evidence.error
    assert evidence.evaluation is None
    assert evidence.training is None  # at the first mark already
    assert max(report.step for report in reports if isinstance(report, protocol.Progress)) < 12


def test_nan_in_training_has_diverged(trial):
    evidence, _, _ = trial(spiked("x = x * (float('nan') if x.shape[:2] == (4, 56) else 1.0)"))
    assert evidence.failure is S.DIVERGED
    assert "step 1" in evidence.error


def test_a_trial_that_ends_itself_is_broken(trial):
    evidence, _, _ = trial(spiked("os._exit(0)"))
    assert evidence.failure is S.BROKEN
    assert "exit status 0" in evidence.error


def test_endless_work_is_timed_out_and_killed(trial):
    started = time.monotonic()
    evidence, _, _ = trial(spiked("time.sleep(1000)"), trial_seconds=8.0)
    assert evidence.failure is S.TIMED_OUT
    assert time.monotonic() - started < 30


def test_silence_is_timed_out(trial):
    evidence, _, _ = trial(spiked("time.sleep(1000)"), stall_seconds=6.0)
    assert evidence.failure is S.TIMED_OUT
    assert "silent" in evidence.error


def test_too_much_memory_is_out_of_memory(trial):
    evidence, _, _ = trial(spiked("hog = torch.ones(3 * 2**28); time.sleep(30)"))
    assert evidence.failure is S.OUT_OF_MEMORY
    assert "limit 1.5 GB" in evidence.error


def test_flooding_the_log_is_broken(trial):
    evidence, _, _ = trial(spiked("print('x' * 2**21, flush=True); time.sleep(30)"))
    assert evidence.failure is S.BROKEN
    assert "printed more than 0.5 MB" in evidence.error


def test_a_forged_result_changes_nothing(trial):
    """The candidate writes a perfect score to every descriptor it holds."""
    forged = (
        '{"type": "scored", "evaluation": {"loss": 0.001, "loss_tokens": 1, "tasks": [], '
        '"prefix_error": 0.0, "prefix_positions": 99, "seconds": 0.1}}'
    )
    honest, _, _ = trial(GOOD)
    line = f"[os.write(fd, {forged!r}.encode() + b'\\n') for fd in (int(sys.argv[2]),)]"
    evidence, _, _ = trial(spiked(line))
    assert evidence.evaluation is not None
    assert evidence.evaluation.loss == honest.evaluation.loss


def test_garbage_on_the_report_pipe_is_broken(trial):
    evidence, _, _ = trial(spiked("os.write(int(sys.argv[2]), b'{nonsense\\n')"))
    assert evidence.failure is S.BROKEN
    assert "malformed report" in evidence.error


def test_garbage_to_the_scorer_is_broken_and_ends_no_search(trial):
    evidence, _, _ = trial(spiked("self.training or os.write(int(sys.argv[6]), b'garbage' * 100)"))
    assert evidence.failure is S.BROKEN
    assert evidence.evaluation is None


def test_a_full_disk_is_not_blamed_on_the_candidate(trial, monkeypatch):
    monkeypatch.setattr("asi_lab.engineer.run.LEAST_FREE_BYTES", 2**62)
    with pytest.raises(TrialError, match="Free some space"):
        trial(spiked("undefined_name + 1"))


def test_no_secret_reaches_the_trial(trial):
    evidence, _, log = trial(spiked("print(sorted(os.environ.items()), flush=True); os._exit(1)"))
    assert evidence.failure is S.BROKEN
    assert "PATH" in log
    assert CANARY not in log


@pytest.mark.parametrize("level", [finding.level for finding in sandbox.probe() if finding.holds])
def test_waiting_processes_die_with_the_engine(tmp_path, level):
    code = (
        "import sys, time\nfrom pathlib import Path\nimport psutil\n"
        "from asi_lab.engineer.executor import Pair\nfrom asi_lab.sandbox import Level, Policy, Sandbox\n"
        f"pair = Pair(Path(sys.argv[1]), Sandbox(Level({level.value!r})), Policy(''))\n"
        "pair.poll(60); pair.poll(60)\n"
        "print(*(p.pid for p in psutil.Process().children(recursive=True)), flush=True)\ntime.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as engine:
        children = [int(number) for number in engine.stdout.readline().split()]
        assert len(children) >= 2
        assert all(psutil.pid_exists(pid) for pid in children)
        engine.send_signal(signal.SIGKILL)
        engine.wait()
    deadline = time.monotonic() + 10
    while any(_alive(pid) for pid in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(_alive(pid) for pid in children)


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
