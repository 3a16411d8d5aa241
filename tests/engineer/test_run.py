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

from asi_lab import config, protocol, references
from asi_lab.data.prepare import prepare
from asi_lab.engineer.executor import LocalExecutor
from asi_lab.engineer.run import run
from asi_lab.errors import TrialError
from asi_lab.protocol import ScoreJob, TrialJob
from asi_lab.records import CandidateState, Evidence
from asi_lab.settings import Settings

S = CandidateState
GOOD = references.source("delta_net")
CANARY = "sk-canary-0123456789"

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
context = 64
warmup_steps = 2
[evaluate]
tasks = ["asi_recall", "asi_copy"]
limit = 8
batch = 8
loss_tokens = 1024
max_length = 256
prefix_checks = 8
[limits]
trial_seconds = 60
stall_seconds = 50
memory_gb = 1.5
log_mb = 0.5
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
def executor(tmp_path_factory):
    os.environ["OPENAI_API_KEY"] = CANARY
    executor = LocalExecutor(tmp_path_factory.mktemp("waiting"))
    executor.prepare()
    yield executor
    executor.close()
    del os.environ["OPENAI_API_KEY"]


@pytest.fixture
def trial(executor, settings, data, tmp_path):
    def go(code: str, resume: bool = False, before: Evidence | None = None, **limits: float):
        (tmp_path / "architecture.py").write_text(code)
        job = TrialJob(
            directory=str(tmp_path),
            data=str(data),
            seed=1,
            data_seed=0,
            device="cpu",
            model=settings.model,
            train=settings.train,
            limits=msgspec.structs.replace(settings.limits, **limits),
            resume=resume,
        )
        score = ScoreJob(str(data), 0, "cpu", settings.train.context, settings.evaluate, 1)
        reports: list[protocol.Report] = []
        pair = executor.take()
        executor.prepare()
        evidence = run(pair, job, score, reports.append, lambda: None, before)
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
    second, _, _ = trial(GOOD)
    assert second.evaluation.loss == first.evaluation.loss
    assert second.evaluation.tasks == first.evaluation.tasks
    # a trial that was cut off after training is only evaluated
    third, reports, _ = trial(GOOD, resume=True, before=Evidence(checks=first.checks))
    assert not any(isinstance(report, protocol.Progress) for report in reports)
    assert third.evaluation.loss == first.evaluation.loss
    assert third.training == second.training
    assert third.checks == first.checks


def test_an_exception_is_broken_with_its_line(trial):
    evidence, _, _ = trial(spiked("undefined_name + 1"))
    assert evidence.failure is S.BROKEN
    assert "undefined_name" in evidence.error
    assert "architecture.py" in evidence.error


def test_a_leak_at_the_start_is_caught_before_training(trial):
    evidence, reports, _ = trial(spiked("x = x + 0.1 * x.flip(1)"))
    assert evidence.failure is S.LEAKING
    assert evidence.error.startswith("causality")
    assert not any(isinstance(report, protocol.Progress) for report in reports)


def test_a_leak_that_opens_after_the_checks_is_caught_by_the_scorer(trial):
    """The future comes in through a gate that is shut until training has moved it."""
    code = GOOD.replace(
        "        self.out_proj =",
        "        self.peek = nn.Parameter(torch.zeros(()))\n        self.out_proj =",
    )
    code = code.replace(
        "        return y, None",
        "        y = y + self.peek * hidden_states.roll(-1, 1)\n        return y, None",
    )
    evidence, _, _ = trial(code)
    assert evidence.training is not None
    assert evidence.failure is S.LEAKING
    assert evidence.evaluation is None


def test_nan_in_training_has_diverged(trial):
    evidence, _, _ = trial(spiked("x = x * (float('nan') if x.shape[:2] == (4, 64) else 1.0)"))
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
    evidence, _, log = trial(spiked("print(sorted(os.environ.items()), flush=True); raise SystemExit"))
    assert evidence.failure is S.BROKEN
    assert "PATH" in log
    assert CANARY not in log


def test_waiting_processes_die_with_the_engine(tmp_path):
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom asi_lab.engineer.executor import Pair\n"
        "pair = Pair(Path(sys.argv[1]))\n"
        "print(pair.trial.popen.pid, pair.scorer.popen.pid, flush=True)\n"
        "pair.poll(60); pair.poll(60)\nprint('ready', flush=True)\ntime.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as engine:
        children = [int(number) for number in engine.stdout.readline().split()]
        assert engine.stdout.readline().strip() == "ready"
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
