"""Are the trial's answers those of its checkpoint, and of nothing that comes later?

A causal model gives a token the same probability whether or not tokens after it are there. So positions are
drawn that nobody could know before, over all that enter a score, last ones included, and a process that never
held a target is asked for each from the bare prefix. It is asked so that no answer can be looked up: prefixes
of one row, and rows of one question, come in rising order of length and never in one batch.

The loss of the full rows plus the mean difference at the drawn positions is the loss of the bare prefixes in
expectation, whatever the full rows claim.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from asi_lab.records import CandidateState
from asi_lab.scorer.client import Remote
from asi_lab.scorer.fault import CandidateFault
from asi_lab.scorer.output import Output

LEAK_NATS = 0.02
"""Largest difference of a log probability that is taken for rounding; those of honest layers stay under
1e-5."""

ROUNDING_NATS = 1e-5
"""Up to this mean size the differences count for nothing, so that an honest record is the same in every
run."""


class Position(NamedTuple):
    """One token that enters a score: its row up to the token before it, and what the full row gave it.

    `group` says what must not be seen together: a window, a question.
    """

    group: Hashable
    prefix: NDArray[np.int64]
    target: int
    log_prob: float


def drawn(total: int, wanted: int) -> NDArray[np.int64]:
    """`wanted` different numbers under `total`, all of them where there are fewer, which nobody can
    foresee."""
    if wanted >= total:
        return np.arange(total)
    generator = np.random.default_rng(int.from_bytes(os.urandom(32), "big"))
    return np.sort(generator.choice(total, wanted, replace=False))


def differences(
    model: Remote, output: Output, positions: Sequence[Position], batch: int, batch_tokens: int, what: str
) -> NDArray[np.float64]:
    """Log probability from the bare prefix minus that of the full row, in nats, for each position.

    Args:
        model: answers prefixes.
        output: final norm and head that belong to it.
        positions: which ones; `what` they are from, in words.
        batch: prefixes sent at once, with at most `batch_tokens` tokens, padding included.

    Raises:
        CandidateFault: one differs by more than `LEAK_NATS`.
        WireError: the process is gone.
    """
    found = np.zeros(len(positions))
    for numbers in _batches(positions, batch, batch_tokens):
        prefixes = [positions[number].prefix for number in numbers]
        lengths = np.array([len(prefix) for prefix in prefixes])
        ids = np.zeros((len(prefixes), lengths.max()), np.int64)
        for row, prefix in zip(ids, prefixes, strict=True):
            row[: len(prefix)] = prefix
        states = model.residual(ids, lengths, lengths - 1)
        targets = torch.tensor([positions[number].target for number in numbers], device=states.device)
        log_probs, _ = output.log_probs(states, targets)
        for number, log_prob in zip(numbers, log_probs.tolist(), strict=True):
            found[number] = log_prob - positions[number].log_prob
            if not abs(found[number]) <= LEAK_NATS:
                raise _fault(positions[number], found[number], what)
    return found


def is_rounding(found: NDArray[np.float64], most: float = ROUNDING_NATS) -> bool:
    """Whether differences (nats) are those of honest layers."""
    return not len(found) or float(np.abs(found).mean()) <= most


def _batches(positions: Sequence[Position], batch: int, batch_tokens: int) -> Iterator[list[int]]:
    """Numbers of positions that may be asked for together: each group's shortest prefixes first."""
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for number in sorted(range(len(positions)), key=lambda number: len(positions[number].prefix)):
        groups[positions[number].group].append(number)
    for turn in range(max(map(len, groups.values()), default=0)):
        together = [numbers[turn] for numbers in groups.values() if turn < len(numbers)]
        together.sort(key=lambda number: -len(positions[number].prefix))
        at = 0
        while at < len(together):
            longest = len(positions[together[at]].prefix)
            size = max(1, min(batch, batch_tokens // longest))
            yield together[at : at + size]
            at += size


def _fault(position: Position, difference: float, what: str) -> CandidateFault:
    return CandidateFault(
        CandidateState.LEAKING,
        f"after {len(position.prefix)} tokens of {what} the next token's log probability is "
        f"{difference:+.3g} nats off when the later tokens are not there and a fresh process answers from "
        f"the checkpoint; at most {LEAK_NATS} is allowed: the model looks ahead, or answers by something "
        "that its weights do not hold",
    )
