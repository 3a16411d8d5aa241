"""A trial in a thread, over real pipes, around models small enough to compute by hand."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from pydoc_data.topics import topics

import pytest
import torch
from torch import Tensor, nn

from asi_lab.common.wire import WireError
from asi_lab.data.tokenizer import Tokenizer, train_tokenizer
from asi_lab.scorer.client import Remote
from asi_lab.scorer.lm import RemoteLM
from asi_lab.scorer.output import Output
from asi_lab.scorer.tasks.build import build_tasks
from asi_lab.settings import ModelSettings
from asi_lab.trial.answering import serve

torch.set_num_threads(1)


class TinyModel(nn.Module):
    """A causal model with random weights and a long memory: ids [B, L] -> hidden states [B, L, D]."""

    def __init__(self, vocab_size: int, width: int = 16) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab_size, width)
        self.mix = nn.Linear(width, width)
        self.head = nn.Linear(width, vocab_size, bias=False)
        nn.init.normal_(self.head.weight)

    def forward(self, ids: Tensor) -> Tensor:
        position = torch.arange(1, ids.shape[1] + 1)
        return torch.tanh(self.mix(self.embed(ids).cumsum(1) / position[:, None].sqrt()))


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train_tokenizer("byte", iter(()))


@pytest.fixture
def model(tokenizer: Tokenizer) -> TinyModel:
    torch.manual_seed(0)
    return TinyModel(tokenizer.vocab_size).eval()


class Plain(Output):
    """An output head without a norm before it, for models small enough to compute by hand."""

    def __init__(self, head: Tensor) -> None:
        self.head, self.device = head.detach(), torch.device("cpu")

    def logits(self, residual: Tensor) -> Tensor:
        return residual @ self.head.T


def of_width(width: int) -> ModelSettings:
    return ModelSettings(layers=1, width=width, heads=1)


@pytest.fixture
def connect() -> Iterator[Callable[..., Remote]]:
    """Start a process' serving loop in a thread around a model; returns the scorer's side of it."""
    served: list[threading.Thread] = []
    pipes = []

    def start(residual: Callable[[Tensor], Tensor], width: int = 16, **options: object) -> Remote:
        to_model, to_scorer = os.pipe(), os.pipe()

        def run() -> None:
            with (
                contextlib.suppress(WireError),  # the scorer gave the candidate up
                os.fdopen(to_model[0], "rb") as reader,
                os.fdopen(to_scorer[1], "wb", buffering=0) as writer,
            ):
                serve(residual, reader, writer, **options)  # type: ignore[arg-type]

        served.append(threading.Thread(target=run, daemon=True))
        served[-1].start()
        reader, writer = os.fdopen(to_scorer[0], "rb"), os.fdopen(to_model[1], "wb", buffering=0)
        pipes.append((reader, writer))
        return Remote(reader, writer, of_width(width))

    yield start
    for reader, writer in pipes:
        reader.close()
        with contextlib.suppress(OSError):
            writer.close()
    for thread in served:
        thread.join(10)
        assert not thread.is_alive()


@pytest.fixture
def make_lm(connect: Callable[..., Remote], tokenizer: Tokenizer) -> Callable[..., RemoteLM]:
    def make(
        residual: Callable[[Tensor], Tensor], head: Tensor, max_length: int = 64, batch: int = 8
    ) -> RemoteLM:
        model, output = connect(residual, head.shape[1]), Plain(head)
        return RemoteLM(
            model, output, tokenizer, max_length=max_length, batch=batch, batch_tokens=batch * 256
        )

    return make


@pytest.fixture
def lm(make_lm: Callable[..., RemoteLM], model: TinyModel) -> RemoteLM:
    return make_lm(model, model.head.weight)


@pytest.fixture(scope="session")
def evaluation_text() -> dict[str, str]:
    """Real prose that every Python brings along."""
    return {f"python/{key}": text for key, text in sorted(topics.items()) if 2000 < len(text) < 9000}


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory, evaluation_text: dict[str, str]) -> Path:
    directory = tmp_path_factory.mktemp("data")
    lines = [json.dumps({"key": key, "text": text}) for key, text in evaluation_text.items()]
    (directory / "evaluation.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return directory


@pytest.fixture(scope="session")
def tasks_dir(data_dir: Path, tokenizer: Tokenizer) -> Path:
    build_tasks(data_dir, data_dir / "tasks", 0, 100, tokenizer)
    return data_dir / "tasks"
