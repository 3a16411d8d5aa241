"""What the streams of a probe are made of: tokens, and the answers that are asked for.

Everything is drawn for a whole batch at once. The token at a position is never its answer, and no later token
is: an answer is a value to be given where it is asked for, and is not fed back.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Booleans = NDArray[np.bool_]
NOTHING = -1


class Streams(NamedTuple):
    """Token ids [N, L], and at each position the token that is the answer there, or `NOTHING` [N, L]."""

    ids: Ints
    answers: Ints

    @property
    def places(self) -> tuple[Ints, Ints]:
        """Rows [A] and columns [A] of all answers, row after row."""
        rows, columns = np.nonzero(self.answers != NOTHING)
        return rows, columns

    @property
    def wanted(self) -> Ints:
        """The answers [A], in the order of `places`."""
        return self.answers[self.places]


def distinct(rng: np.random.Generator, count: int, most: int, wanted: int) -> Ints:
    """For each of `count` streams, `wanted` different numbers under `most`, in random order [N, wanted]."""
    return rng.random((count, most)).argsort(1)[:, :wanted]


def shuffled(rng: np.random.Generator, *columns: Ints) -> list[Ints]:
    """Arrays [N, K], all of them in one random order, another in each row."""
    order = rng.random(columns[0].shape).argsort(1)
    return [np.take_along_axis(column, order, 1) for column in columns]


def joined(*parts: Streams) -> Streams:
    """Parts of streams one after the other."""
    ids, answers = zip(*parts, strict=True)
    return Streams(np.concatenate(ids, 1), np.concatenate(answers, 1))


def laid_out(tokens: Ints, answers: Ints | None = None) -> Streams:
    """Items [N, K, W] of W tokens each as streams [N, K * W]; the answers [N, K] are asked for at the last
    token of each."""
    count, items, width = tokens.shape
    asked = np.full(tokens.shape, NOTHING)
    if answers is not None:
        asked[:, :, -1] = answers
    return Streams(tokens.reshape(count, items * width), asked.reshape(count, items * width))


def packed(streams: Streams, kept: Booleans, padding: int) -> Streams:
    """Streams without the tokens that are not `kept` [N, L], filled up with `padding` on the right to the
    longest."""
    order = np.argsort(~kept, axis=1, kind="stable")[:, : int(kept.sum(1).max())]
    here = np.take_along_axis(kept, order, 1)
    ids = np.where(here, np.take_along_axis(streams.ids, order, 1), padding)
    return Streams(ids, np.where(here, np.take_along_axis(streams.answers, order, 1), NOTHING))
