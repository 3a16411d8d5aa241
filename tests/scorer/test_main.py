"""The scoring process itself, started as the engine starts it, around models in threads of this process."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from pydoc_data.topics import topics

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from asi_lab import protocol
from asi_lab.common.wire import WireError, receive
from asi_lab.data import suites
from asi_lab.data.prepare import prepare
from asi_lab.data.shards import held_out_windows
from asi_lab.data.tokenizer import Tokenizer
from asi_lab.errors import DataError
from asi_lab.protocol import (
    Answered,
    Command,
    Compare,
    Failed,
    Measured,
    MeasureMark,
    Ready,
    Scored,
    ScoreJob,
    ScoreWhole,
)
from asi_lab.records import CandidateState
from asi_lab.scorer import main
from asi_lab.scorer.output import Output
from asi_lab.scorer.tasks.build import TASK_NAMES, build_tasks
from asi_lab.settings import Data, Evaluate
from asi_lab.trial.answering import serve
from tests.scorer import benchmarks
from tests.scorer.conftest import of_width

S = CandidateState
Residual = Callable[[Tensor], Tensor]
MODEL = of_width(16)
ALL = Compare(10**6, 10**6)


class Process:
    """A process that runs candidate code, in a thread. Without a model it leaves at once."""

    def __init__(self, residual: Residual | None, around: Sequence[Tensor] = ()) -> None:
        self.residual, self.around, self.batches = residual, around, 0

    def run(self, reader: int, writer: int) -> None:
        with (
            contextlib.suppress(WireError),
            os.fdopen(reader, "rb") as incoming,
            os.fdopen(writer, "wb", buffering=0) as outgoing,
        ):
            while self.residual is not None:  # training goes on, to the next mark
                serve(self._counted, incoming, outgoing, around=self.around)

    def _counted(self, ids: Tensor) -> Tensor:
        assert self.residual is not None
        self.batches += 1
        return self.residual(ids)


class Garbling(Process):
    """One that answers what is no answer."""

    def run(self, reader: int, writer: int) -> None:
        with os.fdopen(reader, "rb") as incoming, os.fdopen(writer, "wb", buffering=0) as outgoing:
            receive(incoming)
            outgoing.write(b"garbage" * 20)
            incoming.read()


@contextlib.contextmanager
def joined(*processes: Process) -> Iterator[tuple[list[str], tuple[int, ...], int]]:
    """Trial and server at work: the scorer's options, its descriptors, and where its reports can be read."""
    reports, ends, threads = os.pipe(), [], []
    for process in processes:
        to_process, to_scorer = os.pipe(), os.pipe()
        ends += [to_scorer[0], to_process[1]]
        threads.append(threading.Thread(target=process.run, args=(to_process[0], to_scorer[1]), daemon=True))
        threads[-1].start()
    fds = reports[1], *ends
    yield (
        [word for name, fd in zip(main.DESCRIPTORS, fds, strict=True) for word in (name, str(fd))],
        fds,
        reports[0],
    )
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()


def read_reports(descriptor: int) -> list[protocol.Report]:
    with os.fdopen(descriptor, "rb") as stream:
        return [protocol.decoder.decode(line) for line in stream.read().splitlines()]


@pytest.fixture
def run_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., tuple[int, list[protocol.Report]]]:
    """Run the scorer's entry point in this process, which spares the imports; it is told `words`."""
    monkeypatch.setattr("asi_lab.common.process.die_with_parent", lambda *_: None)
    monkeypatch.chdir(tmp_path)

    def run(words: bytes, *processes: Process) -> tuple[int, list[protocol.Report]]:
        told = tmp_path / "told"
        told.write_bytes(words)
        monkeypatch.setattr("sys.stdin", told.open())
        with joined(*processes) as (options, fds, reports):
            try:
                status = main.main(options)
            finally:
                for fd in fds:
                    with contextlib.suppress(OSError):
                        os.close(fd)
        return status, read_reports(reports)

    return run


@pytest.fixture(scope="module")
def lab_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    texts = tmp_path_factory.mktemp("texts")
    for key, text in topics.items():
        for part in range(0, len(text), 1000):
            (texts / f"{key}-{part}.txt").write_text(text[part : part + 1000], encoding="utf-8")
    directory = tmp_path_factory.mktemp("lab") / "data"
    prepare(Data(source=f"text:{texts}/*.txt", tokenizer="bpe:400"), directory)
    build_tasks(directory, directory / "tasks", 0, 20, Tokenizer.load(directory))
    return directory


def job(data: Path, suspect_below: dict[int, float] | None = None, **changes: object) -> ScoreJob:
    settings = {"tasks": TASK_NAMES, "limit": 10, "loss_tokens": 2000, "mark_tokens": 500, "max_length": 256}
    return ScoreJob(
        data=str(data),
        data_seed=0,
        device="cpu",
        train_context=64,
        model=MODEL,
        evaluate=Evaluate(**(settings | changes)),  # type: ignore[arg-type]
        suspect_below=suspect_below or {},
        threads=1,
    )


def lines(*words: ScoreJob | Command) -> bytes:
    return b"".join(protocol.encoder.encode(word) + b"\n" for word in words)


class Trained:
    """A model that was trained, and its checkpoint."""

    def __init__(self, model: torch.nn.Module, file: Path) -> None:
        self.model, self.file = model, file
        self.around = [model.head.weight, torch.ones(16)]
        weights = {"embed.weight": model.head.weight, "head.weight": model.head.weight.clone()}
        save_file({**weights, "norm.weight": torch.ones(16)}, file)
        self.output = Output.of_checkpoint(file, MODEL, len(model.head.weight))

    def whole(self, *before: Command, compare: Compare = ALL) -> tuple[Command, ...]:
        return *before, ScoreWhole(str(self.file)), compare

    def loss(self, windows: np.ndarray) -> float:
        """By one plain pass in float64."""
        ids = torch.from_numpy(windows)
        with torch.no_grad():
            logits = self.output.logits(self.model(ids[:, :-1]).flatten(0, 1)).double()
        return float(torch.nn.functional.cross_entropy(logits, ids[:, 1:].flatten()))


@pytest.fixture
def trained(lab_data: Path, model, tmp_path: Path) -> Trained:
    torch.manual_seed(1)
    fitting = type(model)(Tokenizer.load(lab_data).vocab_size).eval()
    return Trained(fitting, tmp_path / "checkpoint.safetensors")


@pytest.fixture
def windows(lab_data: Path) -> np.ndarray:
    from asi_lab.scorer.scoring import Scoring

    return Scoring(job(lab_data, tasks=("asi_recall",))).windows


def test_claims_are_measured_on_text_that_the_search_never_reads(lab_data: Path, windows, tmp_path) -> None:
    from asi_lab.scorer.scoring import Scoring

    data = tmp_path / "data"
    shutil.copytree(lab_data, data)
    tokenizer = Tokenizer.load(data)
    build_tasks(data, data / "claims_tasks", 0, 20, tokenizer, "claims")
    claims = msgspec.structs.replace(job(data, tasks=("asi_perplexity",)), text="claims")
    found = Scoring(claims)
    assert found.windows.tolist() == held_out_windows(data, "claims.bin", 64, 2000).tolist()
    theirs = {row.tobytes() for row in windows}
    assert theirs.isdisjoint(row.tobytes() for row in found.windows)
    mine, others = (
        [document["text"] for document in Scoring(one)._scored_tasks[0].test_docs()]
        for one in (claims, msgspec.structs.replace(claims, text="search"))
    )
    assert mine
    assert set(mine).isdisjoint(others)
    shutil.rmtree(data / "tasks")
    Scoring(claims)  # it reads none of the others


def test_the_process_scores_a_model_from_end_to_end(
    lab_data: Path, trained: Trained, windows, tmp_path
) -> None:
    trial, server = Process(trained.model, trained.around), Process(trained.model)
    words = lines(job(lab_data), *trained.whole(MeasureMark(3)))
    with joined(trial, server) as (options, fds, reports):
        process = subprocess.Popen(
            [sys.executable, "-m", "asi_lab.scorer", *options],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=fds,
            cwd=tmp_path,
        )
        for fd in fds:
            os.close(fd)
        _, errors = process.communicate(words, timeout=120)
    assert process.returncode == 0, errors
    ready, measured, answered, scored = read_reports(reports)
    assert isinstance(ready, Ready)
    assert isinstance(measured, Measured)
    assert (measured.held_out.step, measured.held_out.suspect) == (3, False)
    assert isinstance(answered, Answered)
    assert isinstance(scored, Scored)
    evaluation = scored.evaluation
    assert evaluation.loss == pytest.approx(trained.loss(windows), abs=1e-4)
    assert evaluation.loss_tokens == windows[:, 1:].size
    assert evaluation.correction == 0.0
    assert [task.task for task in evaluation.tasks] == list(TASK_NAMES)
    assert all(task.samples == 10 for task in evaluation.tasks)
    assert evaluation.seconds > 0
    compared = [json.loads(line) for line in (tmp_path / protocol.COMPARED_FILE).read_text().splitlines()]
    assert [found["rows"] for found in compared] == ["a row at a mark", "a held-out row", "tasks"]
    assert evaluation.prefix_positions == sum(len(found["positions"]) for found in compared[1:])
    assert len(compared[1]["positions"]) == windows[:, 1:].size
    assert trial.batches
    assert server.batches
    assert b"%|" not in errors  # no progress bars in the log


def test_an_honest_model_gives_the_same_record_whatever_is_drawn(run_here, lab_data: Path, trained) -> None:
    words = lines(
        job(lab_data, tasks=("asi_recall", "asi_perplexity")), *trained.whole(compare=Compare(50, 30))
    )
    found = []
    for _ in range(2):
        status, (*_, scored) = run_here(words, Process(trained.model), Process(trained.model))
        assert status == 0
        tasks = tuple(msgspec.structs.replace(task, seconds=0.0) for task in scored.evaluation.tasks)
        found.append(msgspec.structs.replace(scored.evaluation, seconds=0.0, tasks=tasks))
    assert found[0] == found[1]
    first, second = (
        json.loads(line)["positions"]
        for line in Path(protocol.COMPARED_FILE).read_text().splitlines()
        if '"a held-out row"' in line
    )
    assert len(first) == len(second) == 50
    assert first != second


def test_the_papers_benchmarks_are_scored_beside_claims_and_never_for_the_search(
    run_here, lab_data: Path, trained, monkeypatch
) -> None:
    """Code and YAML are lm-eval's own, the items ours; metabench is one result of five parts."""
    monkeypatch.setattr("asi_lab.scorer.harness.TaskManager", benchmarks.narrow)
    monkeypatch.setattr("datasets.load_dataset", benchmarks.load_dataset)
    names = (*suites.EXPLORATION, *suites.GENERALIZATION)
    wanted = msgspec.structs.replace(job(lab_data, tasks=names), text="claims")
    words = lines(wanted, *trained.whole(compare=Compare(50, 200)))
    status, (*_, scored) = run_here(words, Process(trained.model), Process(trained.model))
    assert status == 0
    assert tuple(task.task for task in scored.evaluation.tasks) == names
    assert all(tuple(task.figures) == suites.figures(task.task) for task in scored.evaluation.tasks)
    assert scored.evaluation.result_of("metabench").samples == 5
    status, reports = run_here(lines(job(lab_data, tasks=("boolq", "sciq"))), Process(None), Process(None))
    assert (status, len(reports)) == (DataError.exit_code, 1)


def lying(model, nats: float) -> Residual:
    """Looks one token ahead, and moves the residual stream towards it a little."""

    def residual(ids: Tensor) -> Tensor:
        states = model(ids)
        ahead = torch.roll(ids, -1, dims=1)
        return (
            states
            + nats
            * model.head.weight.detach()[ahead]
            * (torch.arange(ids.shape[1]) < ids.shape[1] - 1)[:, None]
        )

    return residual


def test_a_trial_that_looks_ahead_is_a_failure_of_the_candidate(run_here, lab_data: Path, trained) -> None:
    """Also where the server does the same: it has nothing to look ahead to."""
    for server in (trained.model, lying(trained.model, 0.5)):
        words = lines(job(lab_data, tasks=("asi_copy",)), *trained.whole(compare=Compare(200, 50)))
        status, (*_, answered, failed) = run_here(words, Process(lying(trained.model, 0.5)), Process(server))
        assert status == 0
        assert isinstance(answered, Answered)
        assert isinstance(failed, Failed)
        assert failed.state is S.LEAKING
        assert "tokens of a held-out row" in failed.error


def test_a_gain_too_small_to_be_called_a_leak_is_taken_out_again(
    run_here, lab_data: Path, trained, windows
) -> None:
    """All positions are compared here, so the correction is exact: the loss is that of the bare prefixes, and
    the tasks score as the honest model does."""
    tasks = ("asi_perplexity", "asi_recall", "asi_copy")
    words = lines(job(lab_data, tasks=tasks), *trained.whole())
    _, (*_, honest) = run_here(words, Process(trained.model), Process(trained.model))
    _, (*_, lied) = run_here(words, Process(lying(trained.model, 3e-5)), Process(trained.model))
    assert lied.evaluation.correction > 1e-5
    claimed = lied.evaluation.loss - lied.evaluation.correction
    assert claimed < honest.evaluation.loss - 1e-5
    assert lied.evaluation.loss == pytest.approx(honest.evaluation.loss, abs=1e-6)
    assert lied.evaluation.loss == pytest.approx(trained.loss(windows), abs=1e-4)
    for before, after in zip(honest.evaluation.tasks, lied.evaluation.tasks, strict=True):
        assert after.score == pytest.approx(before.score, rel=1e-5)


def test_at_a_mark_a_leak_ends_the_training(run_here, lab_data: Path, trained) -> None:
    words = lines(job(lab_data, tasks=("asi_copy",)), MeasureMark(5), *trained.whole())
    status, (_, failed) = run_here(words, Process(lying(trained.model, 0.5), trained.around), Process(None))
    assert status == 0
    assert failed.state is S.LEAKING
    assert "tokens of a row at a mark" in failed.error


def test_divergence_is_a_failure_of_the_candidate(run_here, lab_data: Path, trained) -> None:
    broken = Process(lambda ids: trained.model(ids) * float("nan"))
    status, (_, failed) = run_here(lines(job(lab_data), *trained.whole()), broken, Process(None))
    assert status == 0
    assert failed.state is S.DIVERGED


def test_a_checkpoint_with_another_head_is_forged(run_here, lab_data: Path, trained) -> None:
    save_file({"head.weight": torch.zeros(3, 3)}, trained.file)
    words = lines(job(lab_data, tasks=("asi_copy",)), *trained.whole())
    trial = Process(trained.model)
    status, (_, failed) = run_here(words, trial, Process(None))
    assert (status, failed.state, trial.batches) == (0, S.FORGED, 0)


@pytest.mark.parametrize("who", ["trial", "server"])
def test_what_is_no_answer_is_forged(run_here, lab_data: Path, trained, who) -> None:
    """And said before the process hears that nobody asks it any more."""
    words = lines(job(lab_data, tasks=("asi_copy",)), *trained.whole())
    honest = {name: Process(trained.model, trained.around) for name in ("trial", "server")}
    status, reports = run_here(words, *(honest | {who: Garbling(trained.model)}).values())
    assert status == 0
    assert reports[-1].state is S.FORGED
    assert f"the {who} cannot be scored" in reports[-1].error


@pytest.mark.parametrize("who", ["trial", "server"])
def test_a_process_that_dies_is_told_apart(run_here, lab_data: Path, trained, who, capsys) -> None:
    words = lines(job(lab_data, tasks=("asi_copy",)), *trained.whole())
    processes = [Process(None if name == who else trained.model) for name in ("trial", "server")]
    status, reports = run_here(words, *processes)
    assert status == {"trial": protocol.TRIAL_UNUSABLE, "server": protocol.SERVER_UNUSABLE}[who]
    assert not any(isinstance(report, Scored | Failed) for report in reports)
    assert f"the {who} went away" in capsys.readouterr().err


def test_no_job_is_no_error_and_a_bad_one_is_our_bug(run_here) -> None:
    nobody = Process(None), Process(None)
    status, reports = run_here(b"", *nobody)
    assert (status, len(reports)) == (0, 1)
    with pytest.raises(msgspec.ValidationError):
        run_here(json.dumps({"data": 3}).encode() + b"\n", *nobody)


def test_missing_data_is_a_message(run_here, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, reports = run_here(lines(job(tmp_path)), Process(None), Process(None))
    assert (status, len(reports)) == (1, 1)
    assert str(tmp_path) in capsys.readouterr().err
