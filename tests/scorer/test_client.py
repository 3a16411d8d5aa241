"""What the scorer asks of a process that runs candidate code, and what it does not believe."""

import contextlib
import os
import threading
from collections.abc import Callable

import numpy as np
import pytest
import torch

from asi_lab.common.wire import WireError, receive, send
from asi_lab.records import CandidateState
from asi_lab.scorer.client import Remote
from asi_lab.scorer.fault import CandidateFault
from tests.scorer.conftest import of_width

Connect = Callable[..., Remote]


def rows(seed: int = 0, count: int = 24, longest: int = 20, vocab: int = 257) -> tuple[np.ndarray, ...]:
    random = np.random.default_rng(seed)
    ids = random.integers(vocab, size=(count, longest))
    lengths = random.integers(2, longest + 1, size=count)
    return ids, lengths, random.integers(0, lengths)


def test_the_residual_stream_is_that_of_the_model(connect: Connect, model) -> None:
    remote = connect(model)
    for seed in range(5):
        ids, lengths, starts = rows(seed)
        found = remote.residual(ids, lengths, starts)
        with torch.no_grad():
            whole = model(torch.from_numpy(ids))
        expected = torch.cat([h[s:n] for h, s, n in zip(whole, starts, lengths, strict=True)])
        torch.testing.assert_close(found, expected)


def test_what_stands_around_the_layers_is_as_the_process_says(connect: Connect, model) -> None:
    norm = torch.linspace(0.5, 2.0, 16)
    output = connect(model, around=[model.head.weight, norm]).output(257)
    torch.testing.assert_close(output.head, model.head.weight.detach())
    x = torch.randn(3, 16)
    normed = x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * norm
    torch.testing.assert_close(output.logits(x), normed @ model.head.weight.detach().T)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_divergence(bad: float, connect: Connect, model) -> None:
    def residual(ids):
        states = model(ids)
        states[-1, 0, 0] = bad
        return states

    ids, lengths, starts = rows()
    with pytest.raises(CandidateFault, match="not finite") as fault:
        connect(residual).residual(ids, lengths, np.zeros_like(starts))
    assert fault.value.state is CandidateState.DIVERGED
    with pytest.raises(CandidateFault, match="head") as fault:
        connect(model, around=[model.head.weight * bad, torch.ones(16)]).output(257)
    assert fault.value.state is CandidateState.DIVERGED


def test_faults_come_as_numbers_and_are_told_in_our_words(connect: Connect, model) -> None:
    assert connect(model, recheck=lambda: [(1, 85), (2, 0)]).recheck() == ["causality, line 85", "statistics"]
    assert connect(model).recheck() == []


@pytest.mark.parametrize(
    "faults", [["look: secret text"], [[7, 1]], [[0]], [[0, 1, 2]], [[-1, 3]], "text", 7]
)
def test_faults_that_are_none_are_no_answer(faults) -> None:
    reader, writer = answers(({"op": "recheck", "faults": faults}, ()))
    with reader, writer, pytest.raises(WireError) as error:
        Remote(reader, writer, of_width(3)).recheck()
    assert "secret" not in str(error.value)


def answers(*frames: tuple[dict, tuple[np.ndarray, ...]] | None) -> tuple:
    """The scorer's ends of a process that answers with given frames, then hangs up."""
    to_model, to_scorer = os.pipe(), os.pipe()

    def answer() -> None:
        with (
            contextlib.suppress(WireError),  # the scorer may refuse in the middle
            os.fdopen(to_model[0], "rb") as reader,
            os.fdopen(to_scorer[1], "wb", buffering=0) as writer,
        ):
            for header, arrays in filter(None, frames):
                receive(reader)
                send(writer, header, *arrays)

    threading.Thread(target=answer, daemon=True).start()
    return os.fdopen(to_scorer[0], "rb"), os.fdopen(to_model[1], "wb", buffering=0)


@pytest.mark.parametrize(
    "answer",
    [
        None,
        ({"op": "around"}, (np.ones((4, 3), np.float32),)),
        ({"op": "rows"}, ()),
        ({"op": "rows"}, (np.ones((4, 3), np.int32),)),
        ({"op": "rows"}, (np.ones((3, 4), np.float32),)),
        ({"op": "rows"}, (np.ones((4, 4), np.float32),)),
        ({"op": "rows"}, (np.ones((400, 3), np.float32),)),
        ({"op": "rows", "note": "secret text"}, (np.ones((4, 3), np.float32),)),
    ],
)
def test_a_process_that_lies_about_shapes_or_dies_is_a_wire_error(answer) -> None:
    reader, writer = answers(answer)
    with reader, writer, pytest.raises(WireError) as error:
        Remote(reader, writer, of_width(3)).residual(np.zeros((1, 4), np.int64), np.array([4]), np.array([0]))
    assert "secret" not in str(error.value)
