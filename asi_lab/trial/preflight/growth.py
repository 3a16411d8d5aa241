"""Work and memory grow no faster than n log n with the length. Counted, not timed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from asi_lab.records import Check
from asi_lab.trial.preflight.counting import KINDS, WRITES, Counter, Place
from asi_lab.trial.preflight.subject import Subject

SHORTEST = 128
DOUBLINGS = 3
MORE = 2
"""Further doublings for an operation that begins at a longer length: a branch for long sequences."""

SHARE = 1e-3
"""An operation whose excess is under this share of the whole does not count."""
BEND = 0.03
"""Excess of an operation over its own size: 0 for n and n log n, 0.086 for n to the 1.5, 0.25 for n^2."""


IN_PIECES = (
    ". Writing a tensor piece by piece (out[:, i] = ...) copies its whole gradient for every piece: collect "
    "the pieces in a list and use torch.stack or torch.cat"
)


class Growth(NamedTuple):
    """An operation that grows too fast: by `exponent` over the last doubling."""

    kind: str
    place: Place
    exponent: float
    share: float


def growth(subject: Subject, path: str, context: int) -> Check:
    """Count forward and backward of one row at four lengths, the longest at least the training context, and
    at longer ones where some operation only begins there."""
    shortest = max(SHORTEST, 2 ** math.ceil(math.log2(max(1, context))) // 2**DOUBLINGS)
    lengths = [shortest * 2**i for i in range(DOUBLINGS + 1)]
    counts = [_count(subject, path, length) for length in lengths]
    while _begins(counts) and len(lengths) <= DOUBLINGS + MORE:
        lengths.append(2 * lengths[-1])
        counts.append(_count(subject, path, lengths[-1]))
    found = [excess for kind in KINDS for excess in _excesses(kind, [c[kind] for c in counts])]
    limit = 1 + math.log2(math.log2(lengths[-1]) / math.log2(lengths[-2]))
    if found:
        worst = max(found, key=lambda excess: excess.share)
        line, operation = worst.place
        where = f"line {line} ({operation})" if line else operation
        detail = (
            f"{worst.kind} of {where} grow with exponent {worst.exponent:.2f} from {lengths[-2]} to "
            f"{lengths[-1]} tokens (n log n: {limit:.2f}); {worst.share:.0%} of the whole there"
            f"{IN_PIECES if WRITES in operation else ''}"
        )
        return Check("growth", False, worst.exponent, limit, detail, line=line)
    whole = max(_exponent([sum(c[kind].values()) for c in counts]) for kind in KINDS)
    return Check("growth", True, whole, limit, f"{', '.join(KINDS)} at {', '.join(map(str, lengths))} tokens")


def _count(subject: Subject, path: str, length: int) -> dict[str, dict[Place, float]]:
    subject.module.train()
    x = subject.draw(1, length).requires_grad_()
    with Counter(path) as counter:
        subject.backward(x)
    subject.module.zero_grad(set_to_none=True)
    return counter.counts


def _begins(counts: Sequence[Mapping[str, Mapping[Place, float]]]) -> bool:
    """Whether some operation that counts was not there yet two doublings ago."""
    return any(
        work > SHARE * sum(counts[-1][kind].values()) and place not in counts[-3][kind]
        for kind in KINDS
        for place, work in counts[-1][kind].items()
    )


def _excesses(kind: str, counts: Sequence[dict[Place, float]]) -> list[Growth]:
    """Places whose work a token grows faster from doubling to doubling.

    For n log n the work a token rises by the same amount with each doubling, for n not at all; the excess is
    what the last rise adds to the one before it. That cannot be told of what began less than two doublings
    ago.
    """
    total = sum(counts[-1].values())
    found = []
    for place in counts[-1].keys() & counts[-3].keys():
        work = [count.get(place, 0.0) for count in counts]
        per_token = [w / 2**i for i, w in enumerate(work)]
        rises = [b - a for a, b in itertools.pairwise(per_token)]
        excess = (rises[-1] - max(rises[-2], 0.0)) * 2 ** (len(counts) - 1)
        if excess > SHARE * total and excess > BEND * work[-1]:
            found.append(Growth(kind, place, _exponent(work), work[-1] / total))
    return found


def _exponent(work: Sequence[float]) -> float:
    """Of the growth over the last doubling."""
    return math.log2(work[-1] / work[-2]) if work[-1] > 0 and work[-2] > 0 else 0.0
