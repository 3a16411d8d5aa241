"""Streams in which a state changes with every token, and is asked for at every token (arXiv 2411.12537).

Length is all that tests change: the rule is the same however long a stream is.
"""

from __future__ import annotations

from itertools import permutations

import numpy as np

from asi_lab.data.probes.streams import Ints, Streams

ELEMENTS = tuple(permutations(range(3)))
"""The symmetric group S3, by what each element does to three things."""


def parity(rng: np.random.Generator, count: int, *, length: int) -> Streams:
    """Bits; asked for is whether an odd number of them was 1 so far (tokens 2 and 3)."""
    bits = rng.integers(2, size=(count, length))
    return Streams(bits, 2 + bits.cumsum(1) % 2)


def s3(rng: np.random.Generator, count: int, *, length: int) -> Streams:
    """Elements of S3; asked for is the product of all so far (tokens 6 to 11)."""
    ids = rng.integers(len(ELEMENTS), size=(count, length))
    products, states = _products(), np.zeros((count, length), np.int64)
    state = np.zeros(count, np.int64)
    for at in range(length):
        state = states[:, at] = products[state, ids[:, at]]
    return Streams(ids, len(ELEMENTS) + states)


def _products() -> Ints:
    """Which element comes out of one and then another, by their numbers [6, 6]."""
    after = [[ELEMENTS.index(tuple(then[i] for i in one)) for then in ELEMENTS] for one in ELEMENTS]
    return np.array(after)
