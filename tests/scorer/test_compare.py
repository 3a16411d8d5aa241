"""Answers that the bare prefix does not give are found, and what is not found is taken out of the score."""

import numpy as np
import pytest
import torch
from torch import Tensor

from asi_lab.records import CandidateState
from asi_lab.scorer import compare
from asi_lab.scorer.compare import LEAK_NATS, ROUNDING_NATS, Position, differences, drawn, is_rounding
from asi_lab.scorer.fault import CandidateFault
from asi_lab.scorer.loss import target_log_probs
from tests.scorer.conftest import Plain

WINDOWS = np.random.default_rng(0).integers(257, size=(12, 33))


def positions(log_probs: np.ndarray) -> list[Position]:
    """All positions of the windows, with what full rows gave them."""
    return [
        Position(row, WINDOWS[row, : t + 1], int(WINDOWS[row, t + 1]), float(log_probs[row, t]))
        for row in range(len(WINDOWS))
        for t in range(WINDOWS.shape[1] - 1)
    ]


def test_a_causal_model_gives_the_same_from_prefixes(connect, model) -> None:
    output = Plain(model.head.weight)
    log_probs = target_log_probs(connect(model), output, WINDOWS, 5)
    found = differences(connect(model), output, positions(log_probs), 8, 256, "a row")
    assert len(found) == 12 * 32
    assert np.abs(found).max() < ROUNDING_NATS
    assert is_rounding(found)


def next_token(model):
    """Looks one token ahead wherever there is one."""
    return lambda ids: model(ids) + 0.1 * model.embed(torch.roll(ids, -1, dims=1))


def whole_row(model):
    """Mixes in the mean of the whole row, as a missing mask would."""
    return lambda ids: model(ids) + 0.1 * model(ids).mean(1, keepdim=True)


def row_length(model):
    """Knows how long the padded batch is."""
    return lambda ids: model(ids) * (1 + 0.1 * torch.tensor(float(ids.shape[1])).log())


def other_rows(model):
    """Mixes rows of a batch."""
    return lambda ids: model(ids) + 0.1 * model(ids).mean(0, keepdim=True)


def last_position(model):
    """Lies where a row ends, by the first token of the next row: that is the target where windows adjoin."""

    def residual(ids: Tensor) -> Tensor:
        states = model(ids)
        states[:-1, -1] += model.embed(ids[1:, 0])
        return states

    return residual


@pytest.mark.parametrize("leak", [next_token, whole_row, row_length, other_rows, last_position])
def test_leaks_are_found(leak, connect, model) -> None:
    output = Plain(model.head.weight)
    log_probs = target_log_probs(connect(leak(model)), output, WINDOWS, 6)
    with pytest.raises(CandidateFault, match=r"after \d+ tokens of a row .* looks ahead") as fault:
        differences(connect(leak(model)), output, positions(log_probs), 8, 256, "a row")
    assert fault.value.state is CandidateState.LEAKING


def test_a_memory_of_the_full_rows_is_of_no_use_to_another_process(connect, model) -> None:
    """The trial remembers what it said for every prefix and says it again; the server has seen nothing."""

    class Memory:
        def __init__(self) -> None:
            self.said: dict[bytes, Tensor] = {}

        def __call__(self, ids: Tensor) -> Tensor:
            states = next_token(model)(ids)
            for row, tokens in zip(states, ids.numpy(), strict=True):
                for t in range(len(tokens)):
                    row[t] = self.said.setdefault(tokens[: t + 1].tobytes(), row[t].clone())
            return states

    output, remote = Plain(model.head.weight), connect(Memory())
    log_probs = target_log_probs(remote, output, WINDOWS, 6)
    assert is_rounding(differences(remote, output, positions(log_probs), 8, 256, "a row"))
    with pytest.raises(CandidateFault):
        differences(connect(Memory()), output, positions(log_probs), 8, 256, "a row")


def test_neither_rows_of_one_group_nor_longer_prefixes_come_before_their_turn(connect, model) -> None:
    seen: list[list[list[int]]] = []

    def residual(ids: Tensor) -> Tensor:
        seen.append(ids.tolist())
        return model(ids)

    random = np.random.default_rng(1)
    asked = [p for p in positions(np.zeros((12, 32))) if random.random() < 0.4]
    questions = [p._replace(group=p.group // 3) for p in asked]  # three rows are one question
    with pytest.raises(CandidateFault):  # the log probabilities of the rows are not 0
        differences(connect(residual), Plain(model.head.weight), questions, 5, 120, "a row")
    batches = list(compare._batches(questions, 5, 120))
    assert sorted(number for batch in batches for number in batch) == list(range(len(questions)))
    shown: dict[object, int] = {}
    for batch in batches:
        groups = [questions[number].group for number in batch]
        assert len(set(groups)) == len(groups) <= 5
        assert len(batch) * max(len(questions[number].prefix) for number in batch) <= 120 or len(batch) == 1
        for number in batch:
            assert len(questions[number].prefix) >= shown.get(questions[number].group, 0)
            shown[questions[number].group] = len(questions[number].prefix)


@pytest.mark.parametrize("lie", [0.001, 0.015])
def test_in_expectation_no_small_lie_raises_the_score(connect, model, lie: float) -> None:
    """Full rows claim more at half of all positions, by less than what counts as a leak. What is left of the
    gain scatters around nothing, by the spread of the lie over the root of the positions drawn."""
    output = Plain(model.head.weight)
    honest = target_log_probs(connect(model), output, WINDOWS, 6).astype(np.float64)
    claimed = honest + lie * (np.arange(honest.size).reshape(honest.shape) % 2)
    everywhere = positions(claimed)
    server, left = connect(model), []
    for _ in range(30):
        chosen = [everywhere[number] for number in drawn(len(everywhere), 96)]
        found = differences(server, output, chosen, 64, 4096, "a row")
        assert not is_rounding(found)
        left.append(claimed.mean() + found.mean() - honest.mean())
    error = lie / 2 / 96**0.5
    assert abs(np.mean(left)) < 4 * error / 30**0.5
    assert np.max(np.abs(left)) < 5 * error
    assert lie < LEAK_NATS


def test_draws_cover_everything_last_positions_included_and_cannot_be_foreseen() -> None:
    assert drawn(5, 9).tolist() == [0, 1, 2, 3, 4]
    draws = [drawn(1000, 100) for _ in range(60)]
    assert all(len(set(draw.tolist())) == 100 for draw in draws)
    counts = np.bincount(np.concatenate(draws), minlength=1000)
    assert counts[999] > 0 or counts[:10].sum() > 0
    assert abs(counts[500:].sum() - 3000) < 5 * (60 * 100 * 0.25) ** 0.5
    assert draws[0].tolist() != draws[1].tolist()


def test_rare_lies_are_missed_as_rarely_as_is_said() -> None:
    """One position in 200 lies: 1,024 of 32,768 miss all of them in 0.6 % of all cases."""
    lying = np.random.default_rng(0).choice(32_768, 32_768 // 200, replace=False)
    missed = sum(not np.isin(drawn(32_768, 1024), lying).any() for _ in range(1500))
    assert missed / 1500 == pytest.approx(0.006, abs=0.009)
    assert pytest.approx(0.0059, abs=1e-4) == (1 - 1 / 200) ** 1024
