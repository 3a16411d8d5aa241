"""How much a score moves where one log probability moves."""

from types import SimpleNamespace

import numpy as np
import pytest

from asi_lab.records import CandidateState
from asi_lab.scorer.fault import CandidateFault
from asi_lab.scorer.scores import TaskScore


def encode(text: str) -> list[int]:
    return list(text.encode())


def choice_task(sums: list[list[float]], gold: list[int]) -> TaskScore:
    choices = ["a", "bcd", "ef"]
    task = SimpleNamespace(
        task_name="pick",
        OUTPUT_TYPE="multiple_choice",
        config=SimpleNamespace(process_results=None),
        doc_to_choice=lambda doc: choices,
        doc_to_target=lambda doc: doc["gold"],
    )
    samples = [
        {
            "filter": "none",
            "doc_id": number,
            "doc": {"gold": right},
            "arguments": [("context", choice) for choice in choices],
            "filtered_resps": [(log_prob, False) for log_prob in row],
        }
        for number, (row, right) in enumerate(zip(sums, gold, strict=True))
    ]
    return TaskScore(task, samples, {}, encode, 257)


def test_a_shift_is_what_the_score_moves_by():
    sums, gold = [[-1.0, -6.0, -2.0], [-3.0, -2.0, -9.0], [-0.5, -1.5, -2.5]], [0, 2, 1]
    before = choice_task(sums, gold).measure
    for document, choice, nats in ((0, 0, 0.02), (1, 2, -0.015), (2, 0, 0.5)):
        moved = [row.copy() for row in sums]
        moved[document][choice] += nats
        after = choice_task(moved, gold).measure
        assert before.shift(document, choice, nats) == pytest.approx(after.score - before.score)
    assert before.shift(0, 3, 1.0) == 0.0  # a text that is no choice


def test_small_shifts_add_up_to_the_whole():
    """So a sample of positions tells by how much all of them together move a score."""
    rng = np.random.default_rng(0)
    sums = rng.normal(-4, 1, size=(50, 3))
    gold = rng.integers(3, size=50).tolist()
    lies = rng.uniform(-0.02, 0.02, size=(50, 3))
    before, after = (
        choice_task(sums.tolist(), gold).measure,
        choice_task((sums + lies).tolist(), gold).measure,
    )
    added = sum(before.shift(d, c, lies[d, c]) for d in range(50) for c in range(3))
    assert added == pytest.approx(after.score - before.score, rel=0.05)


def rolling(nats: list[float]) -> TaskScore:
    task = SimpleNamespace(task_name="text", OUTPUT_TYPE="loglikelihood_rolling")
    samples = [
        {"filter": "none", "doc_id": i, "arguments": [("four",)], "filtered_resps": [value]}
        for i, value in enumerate(nats)
    ]
    return TaskScore(task, samples, {}, encode, 257)


def test_bits_per_byte_move_linearly():
    before, after = rolling([-8.0, -9.0]).measure, rolling([-8.0, -8.7]).measure
    assert before.shift(1, 0, 0.3) == pytest.approx(after.score - before.score)


def test_a_score_that_no_honest_model_has_ends_as_leaking():
    assert rolling([-8.0]).result(-0.1).score == pytest.approx(rolling([-8.0]).result().score - 0.1)
    with pytest.raises(CandidateFault, match="no honest model") as fault:
        rolling([-8.0]).result(-5.0)
    assert fault.value.state is CandidateState.LEAKING
    with pytest.raises(CandidateFault) as fault:
        rolling([-8.0]).result(float("nan"))
    assert fault.value.state is CandidateState.DIVERGED
