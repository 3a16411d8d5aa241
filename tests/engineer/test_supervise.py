"""Real trials: a trial process and a scorer on a small lab, with sound, broken and hostile candidates."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import psutil
import pytest

from asi_lab import protocol, sandbox
from asi_lab.data.manifest import load_manifest
from asi_lab.data.prepare import prepare
from asi_lab.engineer import resume
from asi_lab.engineer.executor import LocalExecutor
from asi_lab.engineer.supervise import Supervision, run
from asi_lab.lab import config
from asi_lab.protocol import ScoreJob, TrialJob
from asi_lab.records import CandidateState, Evidence
from asi_lab.scoring import references
from asi_lab.settings import Settings
from tests.engineer import scripts
from tests.thinning import one_in

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
probes = []
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
        [sys.executable, "-m", "asi_lab.scorer.tasks.build", str(folder), "0", str(settings.evaluate.limit)],
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


Trial = Callable[..., tuple[Evidence, list[protocol.Report], str]]


@pytest.fixture(scope="module")
def trial(executor, settings, data, tmp_path_factory) -> Trial:
    """Run a real trial of a source; returns the evidence, the reports, and what the trial printed."""

    def go(
        code: str,
        task: str = "train",
        directory: Path | None = None,
        before: Evidence | None = None,
        cut: resume.Cut | None = None,
        save_minutes: float = 0.0,
        suspect_below: dict[int, float] | None = None,
        see: Callable[[protocol.Report], None] = lambda report: None,
        **limits: float,
    ) -> tuple[Evidence, list[protocol.Report], str]:
        directory = directory or tmp_path_factory.mktemp("candidate")
        (directory / "architecture.py").write_text(code)
        job = TrialJob(
            task=task,
            data=str(data),
            vocab_size=load_manifest(data).vocab_size,
            seed=1,
            data_seed=0,
            device="cpu",
            model=settings.model,
            train=msgspec.structs.replace(settings.train, save_minutes=save_minutes),
            limits=msgspec.structs.replace(settings.limits, **limits),
            marks=MARKS,
        )
        evaluate, context = settings.evaluate, settings.train.context
        score = ScoreJob(str(data), 0, "cpu", context, settings.model, evaluate, suspect_below or {}, 1)
        reports: list[protocol.Report] = []
        trio = executor.take()
        executor.prepare()

        def observe(report: protocol.Report, evidence: Evidence) -> None:
            reports.append(report)
            see(report)

        watch = Supervision(settings.supervise, observe=observe)
        evidence = run(trio, job, score, directory, watch, before, cut)
        return evidence, reports, (directory / "trial.log").read_text()

    return go


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> Path:
    """Where the good architecture was measured."""
    return tmp_path_factory.mktemp("honest")


@pytest.fixture(scope="module")
def honest(trial, directory) -> Evidence:
    """The evidence of the good architecture, measured once."""
    return trial(GOOD, directory=directory)[0]


def spiked(line: str, where: str = "        x = hidden_states\n") -> str:
    """The good architecture with one more line in `forward`."""
    assert where in GOOD
    return "import os, sys, time\n" + GOOD.replace(where, f"{where}        {line}\n")


def test_a_sound_candidate_is_measured_and_again_the_same(trial, honest, directory, tmp_path):
    assert honest.failure is None
    assert {task.task for task in honest.evaluation.tasks} == {"asi_recall", "asi_copy"}
    assert 0 < honest.evaluation.loss < 7
    assert honest.evaluation.prefix_positions > 1000
    assert honest.evaluation.correction == 0.0
    compared = [json.loads(line) for line in (directory / "compared.jsonl").read_text().splitlines()]
    assert [len(found["positions"]) for found in compared] == [8, 8, 1008, len(compared[-1]["positions"])]
    assert max(abs(difference) for found in compared for difference in found["differences"]) < 1e-5
    assert all(check.passed for check in honest.checks)
    assert [held_out.step for held_out in honest.held_out] == list(MARKS)
    assert all(held_out.loss > honest.evaluation.loss for held_out in honest.held_out)
    assert {"trained batch", "trained causality", "trained statistics"} <= {c.name for c in honest.checks}
    second, reports, _ = trial(GOOD, directory=tmp_path)
    assert [r.step for r in reports if isinstance(r, protocol.Progress)] == list(range(1, 13))
    assert second.evaluation.loss == honest.evaluation.loss
    untimed = [
        [msgspec.structs.replace(t, seconds=0.0) for t in e.evaluation.tasks] for e in (second, honest)
    ]
    assert untimed[0] == untimed[1]
    assert [h.loss for h in second.held_out] == [h.loss for h in honest.held_out]
    tokens = 12 * 4 * 56
    assert second.training.tokens_per_second == pytest.approx(tokens / second.training.seconds)
    # a trial that was cut off after training is only evaluated
    before = msgspec.structs.replace(second, evaluation=None)
    third, reports, _ = trial(GOOD, task="serve", directory=tmp_path, before=before)
    assert not any(isinstance(report, protocol.Progress) for report in reports)
    assert third.evaluation.loss == honest.evaluation.loss
    assert third.training == second.training
    assert third.checks == second.checks
    assert honest.work is not None
    assert second.work == third.work == honest.work  # counted by three servers


def test_an_exception_is_broken_with_its_line(trial):
    code = spiked("undefined_name + 1")
    evidence, _, _ = trial(code)
    assert evidence.failure is S.BROKEN
    assert "undefined_name" in evidence.error
    assert "architecture.py" in evidence.error
    failed = [check for check in evidence.checks if not check.passed]
    assert failed[0].line == code.splitlines().index("        undefined_name + 1") + 1


@pytest.mark.slow
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
    assert "trained causality" in {check.name for check in evidence.checks if not check.passed}
    assert any(isinstance(report, protocol.Progress) for report in reports)
    assert not any(isinstance(report, protocol.Trained) for report in reports)


@pytest.mark.slow
def test_a_leak_that_hides_from_the_trial_is_caught_by_the_scorer(trial):
    """Candidate code that knows when it is checked can deceive the trial, not what bare prefixes give."""
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
    assert "tokens of a row at a mark the next token's log probability is" in evidence.error
    assert evidence.evaluation is None
    assert evidence.training is None  # at the first mark already
    assert max(report.step for report in reports if isinstance(report, protocol.Progress)) < 12


IN_TRAINING = GOOD.replace(
    "        return y, None",
    "        DeltaNet.steps = getattr(DeltaNet, 'steps', 0) + (self.training and x.shape[:2] == (4, 56))\n"
    "        if self.training and DeltaNet.steps >= 6:\n"
    "            y = y + 0.1 * hidden_states.roll(-1, 1)\n"
    "        return y, None",
)
"""Looks ahead in train mode alone, from the second step of training on: held-out losses do not show it."""


def line_of(word: str, code: str) -> int:
    """The only line of a source that has a word in it."""
    (number,) = (number for number, line in enumerate(code.splitlines(), start=1) if word in line)
    return number


@pytest.mark.slow
def test_an_implausibly_low_loss_has_the_checks_repeated_at_once(trial, honest):
    """Where they find nothing the training goes on; where they find a leak it ends there."""
    suspected, _, _ = trial(GOOD, suspect_below={3: 99.0})
    assert suspected.failure is None
    assert [held_out.suspect for held_out in suspected.held_out] == [True, False]
    assert suspected.evaluation.loss == honest.evaluation.loss
    evidence, _, _ = trial(IN_TRAINING, suspect_below={3: 99.0})
    assert evidence.failure is S.LEAKING
    assert "after 3 steps" in evidence.error
    assert "implausibly low (under 99.0000)" in evidence.error
    assert f"found a fault: causality, line {line_of('roll', IN_TRAINING)}" in evidence.error
    assert evidence.held_out == ()


@pytest.mark.slow
def test_a_leak_in_train_mode_alone_is_caught_in_the_end(trial):
    evidence, _, _ = trial(IN_TRAINING)
    assert evidence.failure is S.LEAKING
    assert evidence.error == "leaking after 12 steps"
    failed = [check for check in evidence.checks if not check.passed]
    assert failed[0].name == "trained causality"
    assert {check.detail for check in failed} == {""}
    assert [held_out.step for held_out in evidence.held_out] == list(MARKS)


@pytest.mark.slow
def test_nan_in_training_has_diverged(trial):
    evidence, _, _ = trial(spiked("x = x * (float('nan') if x.shape[:2] == (4, 56) else 1.0)"))
    assert evidence.failure is S.DIVERGED
    assert "step 1" in evidence.error


@pytest.mark.slow
def test_once_held_out_text_was_shown_an_error_is_a_state_and_a_line(trial, tmp_path):
    code = "TRAINED = set()\n" + spiked(  # one layer alone is called so by the checks
        "TRAINED.update({id(self)} if self.training and x.shape[:2] == (4, 56) else ())\n"
        "        if len(TRAINED) > 1 and not self.training: raise ValueError(f'the text is {x}')"
    )
    evidence, _, _ = trial(code, directory=tmp_path)
    assert evidence.failure is S.BROKEN
    line = line_of("the text is", code)
    assert evidence.error == f'broken after 3 steps, at File "architecture.py", line {line}'
    assert "ValueError: the text is tensor" in (tmp_path / "failure.txt").read_text()


@pytest.mark.slow
def test_a_trial_that_ends_itself_is_broken(trial):
    evidence, _, _ = trial(spiked("os._exit(0)"))
    assert evidence.failure is S.BROKEN
    assert "exit status 0" in evidence.error


@pytest.mark.slow
def test_endless_work_is_timed_out_and_killed(trial):
    evidence, _, _ = trial(spiked("time.sleep(10_000)"), trial_seconds=8.0)
    assert evidence.failure is S.TIMED_OUT


@pytest.mark.slow
def test_silence_is_timed_out(trial):
    evidence, _, _ = trial(spiked("time.sleep(1000)"), stall_seconds=6.0)
    assert evidence.failure is S.TIMED_OUT
    assert "silent" in evidence.error


@pytest.mark.slow
def test_too_much_memory_is_out_of_memory(trial):
    evidence, _, _ = trial(spiked("hog = torch.ones(3 * 2**28); time.sleep(30)"))
    assert evidence.failure is S.OUT_OF_MEMORY
    assert "limit 1.5 GB" in evidence.error


@pytest.mark.slow
def test_flooding_the_log_is_broken(trial):
    evidence, _, _ = trial(spiked("print('x' * 2**21, flush=True); time.sleep(30)"))
    assert evidence.failure is S.BROKEN
    assert "printed more than 0.5 MB" in evidence.error


FORGERIES = {
    "a score": (
        '{"type": "scored", "evaluation": {"loss": 0.001, "loss_tokens": 1, "tasks": [],'
        ' "prefix_positions": 99, "seconds": 0.1}}'
    ),
    "a held-out loss": '{"type": "measured", "held_out": {"step": 3, "loss": 0.1, "seconds": 0.1}}',
    "the end": '{"type": "stage", "state": "done"}',
    "nonsense": "{nonsense",
}


@pytest.mark.parametrize("what", one_in(4, FORGERIES))
def test_a_forged_report_ends_the_candidate(trial, what):
    line = f"{FORGERIES[what]}\n".encode()
    evidence, _, _ = trial(spiked(f"x.shape[:2] == (4, 56) and os.write(int(sys.argv[2]), {line!r})"))
    assert evidence.failure is S.FORGED
    assert evidence.evaluation is None


HOSTILE = """
        import itertools, sys
        import asi_lab.trial.train.trainer as trainer
        DeltaNet.steps = getattr(DeltaNet, 'steps', 0) + (self.training and x.shape[:2] == (4, 56))
        if DeltaNet.steps == 7:  # training has begun
            real = trainer.time.perf_counter()
            ticks = itertools.count()
            trainer.time.perf_counter = lambda: real + 1e-6 * next(ticks)
        if DeltaNet.steps == 18:  # the last step has been taken
            nn.functional.cross_entropy = lambda *a, **k: torch.zeros(())
        return y, None"""


@pytest.mark.slow
def test_nothing_that_a_candidate_patches_changes_its_score(trial, honest):
    """The clock, the loss. The scorer is another process, and the engine has a clock of its own."""
    code = "import os\n" + GOOD.replace("\n        return y, None", HOSTILE)
    started = time.monotonic()
    evidence, reports, _ = trial(code)
    assert evidence.failure is None, evidence.error
    assert evidence.evaluation.loss == honest.evaluation.loss
    assert evidence.evaluation.tasks == honest.evaluation.tasks
    assert [h.loss for h in evidence.held_out] == [h.loss for h in honest.held_out]
    (claimed,) = [report.claims for report in reports if isinstance(report, protocol.Trained)]
    assert claimed.seconds < evidence.training.seconds < time.monotonic() - started
    assert evidence.training.tokens_per_second == 12 * 4 * 56 / evidence.training.seconds


@pytest.mark.slow
def test_garbage_to_the_scorer_is_forged_and_ends_no_search(trial):
    once = "self.training or DeltaNet.__dict__.get('sent') or setattr(DeltaNet, 'sent', True) or "
    evidence, _, _ = trial(spiked(f"{once}os.write(int(sys.argv[6]), b'garbage' * 100)"))
    assert evidence.failure is S.FORGED
    assert evidence.evaluation is None


MEMO = GOOD.replace(
    "        return y, None",
    """        import sys
        frame = sys._getframe()
        while frame is not None and frame.f_code.co_name != "serve":
            frame = frame.f_back
        if frame is not None:  # looks ahead, and remembers what it said about every prefix
            memory = DeltaNet.__dict__.get("memory") or {}
            DeltaNet.memory = memory
            ahead = y + 0.5 * hidden_states.roll(-1, 1)
            for r, row in enumerate(hidden_states):
                for t in range(len(row)):
                    key = row[: t + 1].numpy().tobytes()
                    ahead[r, t] = memory.setdefault(key, ahead[r, t].clone())
            y = ahead
        return y, None""",
)


def test_a_liar_that_remembers_what_it_said_is_caught_by_a_process_that_never_heard_it(trial):
    """It passes every comparison with itself; its loss is far too good."""
    evidence, reports, _ = trial(MEMO)
    assert evidence.failure is S.LEAKING
    assert "a fresh process answers from the checkpoint" in evidence.error
    assert "a held-out row" in evidence.error
    assert len(evidence.held_out) == 2
    assert evidence.evaluation is None
    assert any(isinstance(report, protocol.Answered) for report in reports)


def test_no_secret_reaches_the_trial(trial):
    evidence, _, log = trial(spiked("print(sorted(os.environ.items()), flush=True); os._exit(1)"))
    assert evidence.failure is S.BROKEN
    assert "PATH" in log
    assert CANARY not in log


def kill(module: str) -> None:
    """SIGKILL the process at work that runs a module, which is older than the one that waits."""
    min(scripts.running(module), key=lambda process: process.create_time()).kill()


MODULES = ["asi_lab.trial", "asi_lab.trial.server", "asi_lab.scorer"]
BOUNDARIES = {
    "checked": lambda report: isinstance(report, protocol.Checked),
    "preflighted": lambda report: report == protocol.Stage(S.PREFLIGHTED),
    "training": lambda report: report == protocol.Stage(S.TRAINING),
    "in training": lambda report: isinstance(report, protocol.Progress) and report.step == 5,
    "at a mark": lambda report: isinstance(report, protocol.Measured),
    "trained": lambda report: isinstance(report, protocol.Trained),
    "answered": lambda report: isinstance(report, protocol.Answered),
}


@pytest.mark.slow
@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_killed_at_any_state_a_trial_gives_the_same_in_the_end(trial, honest, tmp_path, boundary, module):
    """SIGKILL of one of the three behind each boundary; what was trained is only scored again."""
    if boundary == "answered" and module == MODULES[0]:
        pytest.skip("it was ended before")
    reached = BOUNDARIES[boundary]
    killed, reports, _ = trial(
        GOOD, directory=tmp_path, see=lambda report: kill(module) if reached(report) else None
    )
    assert killed.failure is S.INTERRUPTED, killed.error
    assert "SIGKILL" in killed.error
    task = "serve" if any(isinstance(report, protocol.Trained) for report in reports) else "train"
    assert (task == "serve") == (boundary in ("trained", "answered") or module == MODULES[1])
    before = msgspec.structs.replace(killed, failure=None, error="") if task == "serve" else None
    again, _, _ = trial(GOOD, task=task, directory=tmp_path, before=before)
    assert again.evaluation.loss == honest.evaluation.loss
    assert again.evaluation.tasks == honest.evaluation.tasks
    assert [h.loss for h in again.held_out] == [h.loss for h in honest.held_out]
    assert [c.name for c in again.checks] == [c.name for c in honest.checks]


@pytest.mark.slow
def test_killed_in_training_it_goes_on_from_its_checkpoint_to_the_same_end(trial, honest, tmp_path):
    """A checkpoint after every step; killed at the ninth it goes on there, and the marks before are known."""
    often = 1e-9

    killed, reports, _ = trial(
        GOOD,
        directory=tmp_path,
        save_minutes=often,
        see=lambda r: kill("asi_lab.trial") if isinstance(r, protocol.Progress) and r.step == 9 else None,
    )
    assert killed.failure is S.INTERRUPTED, killed.error
    cut = msgspec.json.decode((tmp_path / resume.RECORD_FILE).read_bytes(), type=resume.Cut)
    assert 6 <= cut.step <= 11
    assert [report.step for report in reports if isinstance(report, protocol.Saved)][-1] == cut.step
    assert [held_out.step for held_out in cut.held_out] == list(MARKS)
    assert [path.name for path in tmp_path.glob("resume-*")] == [cut.file]

    before = Evidence(held_out=cut.held_out)
    again, reports, _ = trial(
        GOOD, task="resume", directory=tmp_path, before=before, cut=cut, save_minutes=often
    )
    steps = [report.step for report in reports if isinstance(report, protocol.Progress)]
    assert steps == list(range(cut.step + 1, 13))
    assert again.evaluation.loss == honest.evaluation.loss
    assert again.evaluation.tasks == honest.evaluation.tasks
    assert [h.loss for h in again.held_out] == [h.loss for h in honest.held_out]
    assert again.training.train_loss == honest.training.train_loss
    assert again.training.seconds > cut.seconds
    assert list(tmp_path.glob("resume*")) == []


@pytest.mark.slow
def test_a_claim_of_a_checkpoint_that_is_none_is_forged(trial):
    forged = """os.write(int(sys.argv[2]), b'{"type": "saved", "step": 1}' + bytes([10]))"""
    evidence, _, _ = trial(spiked(f"x.shape[:2] == (4, 56) and {forged}"), save_minutes=1.0)
    assert evidence.failure is S.FORGED
    assert "it said Saved when it was checking" in evidence.error


@pytest.mark.slow
@pytest.mark.parametrize("level", [finding.level for finding in sandbox.probe() if finding.holds])
def test_waiting_processes_die_with_the_engine(tmp_path, level):
    code = (
        "import sys, time\nfrom pathlib import Path\nimport psutil\n"
        "from asi_lab.engineer.executor import LocalTrio\n"
        "from asi_lab.sandbox import Level, Policy, Sandbox\n"
        f"trio = LocalTrio(Path(sys.argv[1]), Sandbox(Level({level.value!r})), Policy(''))\n"
        "trio.poll(60); trio.poll(60); trio.poll(60)\n"
        "print(*(p.pid for p in psutil.Process().children(recursive=True)), flush=True)\ntime.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as engine:
        children = [int(number) for number in engine.stdout.readline().split()]
        assert len(children) >= 3
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
