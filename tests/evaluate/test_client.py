import contextlib
import os
import threading
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from asi_lab.evaluate.client import HiddenStates
from asi_lab.evaluate.fault import CandidateFault
from asi_lab.evaluate.loss import held_out_loss
from asi_lab.evaluate.wire import WireError, receive, send
from asi_lab.records import CandidateState

Connect = Callable[..., HiddenStates]


def rows(seed: int = 0, count: int = 24, longest: int = 20, vocab: int = 257) -> tuple[np.ndarray, ...]:
    random = np.random.default_rng(seed)
    ids = random.integers(vocab, size=(count, longest))
    lengths = random.integers(2, longest + 1, size=count)
    return ids, lengths, random.integers(0, lengths)


def use(states: HiddenStates, requests: int = 6) -> None:
    for seed in range(requests):
        states.hidden(*rows(seed))
    states.finish()


def test_states_are_those_of_the_model(connect: Connect, model) -> None:
    states = connect(model, model.head.weight)
    torch.testing.assert_close(states.head, model.head.weight.detach())
    for seed in range(5):
        ids, lengths, starts = rows(seed)
        found = states.hidden(ids, lengths, starts)
        with torch.no_grad():
            whole = model(torch.from_numpy(ids))
        expected = torch.cat([h[s:n] for h, s, n in zip(whole, starts, lengths, strict=True)])
        torch.testing.assert_close(found, expected)


def test_a_causal_model_passes_and_enough_positions_are_checked(connect: Connect, model) -> None:
    states = connect(model, model.head.weight, prefix_checks=40)
    use(states, requests=3)
    assert states.prefix_positions >= 40
    assert states.prefix_error < 1e-4


def test_every_request_of_many_rows_carries_a_probe(connect: Connect, model) -> None:
    seen: list[tuple[int, ...]] = []

    def hidden(ids: Tensor) -> Tensor:
        seen.append(tuple(ids.shape))
        return model(ids)

    states = connect(hidden, model.head.weight, prefix_checks=3)
    for seed in range(6):
        states.hidden(*rows(seed))
    assert seen == [(25, 20)] * 6
    assert states.prefix_positions == 6
    states.finish()
    assert seen[-1][0] == 1
    assert states.prefix_positions == 7


def next_token(model) -> Callable[[Tensor], Tensor]:
    """Looks one token ahead wherever there is one."""
    return lambda ids: model(ids) + 0.1 * model.embed(torch.roll(ids, -1, dims=1))


def whole_row(model) -> Callable[[Tensor], Tensor]:
    """Mixes in the mean of the whole row, as a missing mask would."""
    return lambda ids: model(ids) + 0.1 * model(ids).mean(1, keepdim=True)


def row_length(model) -> Callable[[Tensor], Tensor]:
    """Knows how long the padded batch is."""
    return lambda ids: model(ids) * (1 + 0.1 * torch.tensor(float(ids.shape[1])).log())


def other_rows(model) -> Callable[[Tensor], Tensor]:
    """Mixes rows of a batch."""
    return lambda ids: model(ids) + 0.1 * model(ids).mean(0, keepdim=True)


@pytest.mark.parametrize("leak", [next_token, whole_row, row_length, other_rows])
def test_leaks_are_caught(leak, connect: Connect, model) -> None:
    states = connect(leak(model), model.head.weight)
    with pytest.raises(CandidateFault, match=r"position \d+ in a row of \d+ tokens changes by") as fault:
        use(states)
    assert fault.value.state is CandidateState.LEAKING
    assert states.prefix_error > 1e-3


def test_a_leak_cannot_hide_behind_a_component_that_the_head_ignores(connect: Connect, model) -> None:
    """A huge constant makes the leak small beside the RMS of the state, but not in the logits."""

    def hidden(ids: Tensor) -> Tensor:
        states = next_token(model)(ids)
        return torch.cat([states, torch.full_like(states[..., :1], 1e5)], dim=-1)

    head = torch.cat([model.head.weight, torch.ones(257, 1)], dim=1)
    with pytest.raises(CandidateFault) as fault:
        use(connect(hidden, head))
    assert fault.value.state is CandidateState.LEAKING


def test_a_model_that_leaks_only_within_the_held_out_loss_is_caught(connect: Connect, model) -> None:
    states = connect(next_token(model), model.head.weight)
    windows = np.random.default_rng(0).integers(257, size=(4, 33))

    def measure() -> None:
        held_out_loss(states, windows, batch=2)
        states.finish()

    with pytest.raises(CandidateFault):
        measure()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_divergence(bad: float, connect: Connect, model) -> None:
    def hidden(ids: Tensor) -> Tensor:
        states = model(ids)
        states[-1, 0, 0] = bad
        return states

    ids, lengths, starts = rows()
    with pytest.raises(CandidateFault, match="not finite") as fault:
        connect(hidden, model.head.weight).hidden(ids, lengths, np.zeros_like(starts))
    assert fault.value.state is CandidateState.DIVERGED
    with pytest.raises(CandidateFault, match="head") as fault:
        connect(model, model.head.weight * bad)
    assert fault.value.state is CandidateState.DIVERGED


def test_a_head_of_another_vocabulary_is_broken(connect: Connect, model) -> None:
    with pytest.raises(CandidateFault, match="257 rows") as fault:
        connect(model, model.head.weight[:100], vocab_size=257)
    assert fault.value.state is CandidateState.BROKEN


def test_nothing_to_check_is_our_mistake(connect: Connect, model) -> None:
    states = connect(model, model.head.weight)
    ids, lengths, _ = rows()
    states.hidden(ids, lengths, lengths - 1)
    with pytest.raises(ValueError, match="no prefix"):
        states.finish()


def test_probes_follow_the_seed(connect: Connect, model) -> None:
    def run(seed: int) -> list[list[int]]:
        seen: list[list[int]] = []

        def hidden(ids: Tensor) -> Tensor:
            seen.extend(ids.tolist())
            return model(ids)

        use(connect(hidden, model.head.weight, seed=seed))
        return seen

    assert run(1) == run(1)
    assert run(1) != run(2)


def answers(*frames: tuple[dict, tuple[np.ndarray, ...]]) -> tuple:
    """The scorer's ends of a trial that answers with given frames, then hangs up."""
    to_trial, to_scorer = os.pipe(), os.pipe()

    def trial() -> None:
        with (
            contextlib.suppress(WireError),  # the scorer may refuse in the middle
            os.fdopen(to_trial[0], "rb") as reader,
            os.fdopen(to_scorer[1], "wb", buffering=0) as writer,
        ):
            for header, arrays in frames:
                receive(reader)
                send(writer, header, *arrays)

    threading.Thread(target=trial, daemon=True).start()
    return os.fdopen(to_scorer[0], "rb"), os.fdopen(to_trial[1], "wb", buffering=0)


HEAD = ({"op": "head"}, (np.ones((5, 3), np.float32),))


@pytest.mark.parametrize(
    "answer",
    [
        None,
        ({"op": "head"}, (np.ones((4, 3), np.float32),)),
        ({"op": "hidden"}, ()),
        ({"op": "hidden"}, (np.ones((4, 3), np.int32),)),
        ({"op": "hidden"}, (np.ones((3, 4), np.float32),)),
        ({"op": "hidden"}, (np.ones((400, 3), np.float32),)),
    ],
)
def test_a_trial_that_lies_about_shapes_or_dies_is_a_wire_error(answer) -> None:
    reader, writer = answers(HEAD, *([answer] if answer else []))
    with reader, writer:
        states = HiddenStates(reader, writer, vocab_size=5, prefix_checks=1, prefix_tolerance=1e-3, seed=0)
        with pytest.raises(WireError):
            states.hidden(np.zeros((1, 4), np.int64), np.array([4]), np.array([0]))
