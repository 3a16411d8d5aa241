"""The scoring process itself, started as the engine starts it, around a trial in this process."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from asi_lab import protocol
from asi_lab.data.prepare import prepare
from asi_lab.data.shards import validation_windows
from asi_lab.data.tokenizer import Tokenizer
from asi_lab.evaluate import scorer
from asi_lab.evaluate.serve import serve
from asi_lab.evaluate.tasks import TASK_NAMES, build_tasks
from asi_lab.evaluate.wire import WireError
from asi_lab.protocol import Failed, Ready, Scored, ScoreJob
from asi_lab.records import CandidateState
from asi_lab.settings import Data, Evaluate

Hidden = Callable[[Tensor], Tensor]


@dataclass
class Trial:
    """A trial in a thread. `batches` is what it answered, None where the scorer left without a goodbye."""

    hidden: Hidden | None
    head: Tensor
    batches: int | None = None

    def run(self, reader: int, writer: int) -> None:
        with (
            contextlib.suppress(WireError),
            os.fdopen(reader, "rb") as incoming,
            os.fdopen(writer, "wb", buffering=0) as outgoing,
        ):
            if self.hidden is not None:
                self.batches = serve(self.hidden, self.head, incoming, outgoing)


@contextlib.contextmanager
def pipes(trial: Trial) -> Iterator[tuple[list[str], tuple[int, ...], int]]:
    """A running trial: the scorer's options, its descriptors, and where its reports can be read."""
    reports, to_trial, to_scorer = os.pipe(), os.pipe(), os.pipe()
    fds = reports[1], to_scorer[0], to_trial[1]
    names = "--report-fd", "--in-fd", "--out-fd"
    thread = threading.Thread(target=trial.run, args=(to_trial[0], to_scorer[1]), daemon=True)
    thread.start()
    yield [text for name, fd in zip(names, fds, strict=True) for text in (name, str(fd))], fds, reports[0]
    thread.join(30)
    assert not thread.is_alive()


def read_reports(descriptor: int) -> list[protocol.Report]:
    with os.fdopen(descriptor, "rb") as stream:
        return [protocol.decoder.decode(line) for line in stream.read().splitlines()]


@pytest.fixture
def run_here(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, list[protocol.Report]]]:
    """Run the scorer's entry point in this process, which spares the imports; standard input is `line`."""
    monkeypatch.setattr("asi_lab.process.die_with_parent", lambda: None)

    def run(line: bytes, trial: Trial) -> tuple[int, list[protocol.Report]]:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(line)))
        with pipes(trial) as (options, fds, reports):
            try:
                status = scorer.main(options)
            finally:
                for fd in fds:
                    with contextlib.suppress(OSError):
                        os.close(fd)
        return status, read_reports(reports)

    return run


@pytest.fixture(scope="module")
def lab_data(tmp_path_factory: pytest.TempPathFactory, evaluation_text: dict[str, str]) -> Path:
    texts = tmp_path_factory.mktemp("texts")
    for key, text in evaluation_text.items():
        for part in range(0, len(text), 1000):
            (texts / f"{key.split('/')[1]}-{part}.txt").write_text(text[part : part + 1000], encoding="utf-8")
    directory = tmp_path_factory.mktemp("lab") / "data"
    prepare(Data(source=f"text:{texts}/*.txt", tokenizer="bpe:400"), directory)
    build_tasks(directory, directory / "tasks", 0, 20, Tokenizer.load(directory))
    return directory


def job(data: Path, **changes: object) -> ScoreJob:
    settings = {"tasks": TASK_NAMES, "limit": 10, "loss_tokens": 2000, "max_length": 256} | changes
    return ScoreJob(
        data=str(data),
        data_seed=0,
        device="auto",
        train_context=64,
        evaluate=Evaluate(**settings),  # type: ignore[arg-type]
        threads=1,
    )


def encoded(score_job: ScoreJob) -> bytes:
    return protocol.encoder.encode(score_job) + b"\n"


@pytest.fixture
def trained(lab_data: Path, model) -> tuple:
    torch.manual_seed(1)
    fitting = type(model)(Tokenizer.load(lab_data).vocab_size)
    return fitting.eval(), fitting.head.weight.detach()


def test_the_process_scores_a_model_from_end_to_end(lab_data: Path, trained: tuple) -> None:
    model, head = trained
    trial = Trial(model, head)
    with pipes(trial) as (options, fds, reports):
        process = subprocess.Popen(
            [sys.executable, "-m", "asi_lab.evaluate.scorer", *options],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=fds,
        )
        for fd in fds:
            os.close(fd)
        _, errors = process.communicate(encoded(job(lab_data)), timeout=120)
    assert process.returncode == 0, errors
    ready, scored = read_reports(reports)
    assert isinstance(ready, Ready)
    assert isinstance(scored, Scored)
    assert trial.batches
    evaluation = scored.evaluation
    windows = torch.from_numpy(validation_windows(lab_data, 64, 2000))
    with torch.no_grad():
        logits = model(windows[:, :-1]) @ head.T
    expected = F.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten()).item()
    assert evaluation.loss == pytest.approx(expected, abs=1e-4)
    assert evaluation.loss_tokens == windows[:, 1:].numel()
    assert [task.task for task in evaluation.tasks] == list(TASK_NAMES)
    assert all(task.samples == 10 for task in evaluation.tasks)
    assert evaluation.prefix_positions >= 16
    assert evaluation.prefix_error < 1e-4
    assert evaluation.seconds > 0
    assert b"%|" not in errors  # no progress bars in the log


def test_the_same_model_gives_the_same_numbers(run_here, lab_data: Path, trained: tuple) -> None:
    line = encoded(job(lab_data, tasks=("asi_recall", "asi_perplexity")))
    (_, first), (_, second) = (run_here(line, Trial(*trained))[1] for _ in range(2))
    assert isinstance(first, Scored)
    assert isinstance(second, Scored)
    assert first.evaluation.loss == second.evaluation.loss
    assert first.evaluation.tasks == second.evaluation.tasks
    assert first.evaluation.prefix_error == second.evaluation.prefix_error


def test_a_leak_is_a_failure_of_the_candidate(run_here, lab_data: Path, trained: tuple) -> None:
    model, head = trained

    def leaking(ids: Tensor) -> Tensor:
        return model(ids) + 0.1 * model.embed(torch.roll(ids, -1, dims=1))

    trial = Trial(leaking, head)
    status, (_, failed) = run_here(encoded(job(lab_data)), trial)
    assert status == 0
    assert isinstance(failed, Failed)
    assert failed.state is CandidateState.LEAKING
    assert "position" in failed.error
    assert trial.batches is not None


def test_divergence_is_a_failure_of_the_candidate(run_here, lab_data: Path, trained: tuple) -> None:
    model, head = trained
    trial = Trial(model, head * float("nan"))
    status, (_, failed) = run_here(encoded(job(lab_data)), trial)
    assert status == 0
    assert isinstance(failed, Failed)
    assert failed.state is CandidateState.DIVERGED
    assert trial.batches == 0


def test_a_dying_trial_is_told_apart(run_here, lab_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, reports = run_here(encoded(job(lab_data, tasks=("asi_copy",))), Trial(None, torch.zeros(0)))
    assert status == 3
    assert len(reports) == 1
    assert "the trial went away" in capsys.readouterr().err


def test_no_job_is_no_error_and_a_bad_one_is_our_bug(run_here) -> None:
    nobody = Trial(None, torch.zeros(0))
    status, reports = run_here(b"", nobody)
    assert (status, len(reports)) == (0, 1)
    with pytest.raises(msgspec.ValidationError):
        run_here(json.dumps({"data": 3}).encode() + b"\n", nobody)


def test_missing_data_is_a_message(run_here, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, reports = run_here(encoded(job(tmp_path)), Trial(None, torch.zeros(0)))
    assert (status, len(reports)) == (1, 1)
    assert str(tmp_path) in capsys.readouterr().err
