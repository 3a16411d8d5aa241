"""Token shards, memory-mapped, and the order in which training reads them.

A shard is a flat file of token ids, each document followed by the end-of-text id. A window is
`context` + 1 tokens: all but the last are inputs, all but the first are targets. Training windows lie
`context` apart, so the last token of one is the first of the next and each token but the first of the
shard is predicted exactly once an epoch. Held-out windows lie `context` + 1 apart and share no token.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asi_lab.data.manifest import TRAIN_FILE, load_manifest
from asi_lab.errors import DataError

ROUNDS = 8
"""Feistel rounds; four are provably close to random for wide halves, narrow ones want more."""


class TokenStream:
    """Batches of training windows, by step number, in an order that is a function of the seed alone.

    Each epoch visits every window exactly once, in its own keyed permutation. Any step can be
    asked for at any time, so training that resumes at a step sees what it would have seen.
    """

    def __init__(self, directory: Path, context: int, batch: int, seed: int):
        """Open the training shard; raises `DataError` where it is damaged or shorter than a window."""
        self.context = context
        self.batch_size = batch
        self._seed = seed
        self._tokens = open_shard(directory, TRAIN_FILE)
        self.windows = (len(self._tokens) - 1) // context
        _check_length(self._tokens, context, directory / TRAIN_FILE)

    def batch(self, step: int) -> NDArray[np.int64]:
        """Tokens [B, T + 1] of a step, counted from 0; inputs are [:, :-1], targets [:, 1:]."""
        if step < 0:
            raise ValueError(f"a step is counted from 0, not {step}")
        samples = np.arange(step * self.batch_size, (step + 1) * self.batch_size, dtype=np.int64)
        epochs, positions = np.divmod(samples, self.windows)
        chosen = np.empty_like(positions)
        for epoch in np.unique(epochs):
            of_epoch = epochs == epoch
            chosen[of_epoch] = permute(positions[of_epoch], self.windows, (self._seed, int(epoch)))
        return _gather(self._tokens, chosen * self.context, self.context)


def held_out_windows(directory: Path, name: str, context: int, tokens: int) -> NDArray[np.int64]:
    """The first windows [N, T + 1] of the held-out shard `name` that predict `tokens` tokens.

    `N` is `tokens // context`, at least 1 and at most what the shard holds. Raises `DataError`
    where it is damaged or shorter than one window.
    """
    shard = open_shard(directory, name)
    _check_length(shard, context, directory / name)
    wanted = min(max(tokens // context, 1), len(shard) // (context + 1))
    return _gather(shard, np.arange(wanted, dtype=np.int64) * (context + 1), context)


def open_shard(directory: Path, name: str) -> NDArray[Any]:
    """A shard as a read-only memory map [tokens] of uint16 or uint32."""
    manifest = load_manifest(directory, only=name)
    return np.memmap(directory / name, dtype=np.dtype(manifest.dtype).newbyteorder("<"), mode="r")


def permute(positions: NDArray[np.int64], size: int, key: tuple[int, ...]) -> NDArray[np.int64]:
    """Where a keyed permutation of range(size) sends `positions` [N].

    A Feistel network over the smallest even number of bits that holds `size`, applied again to
    whatever falls outside the range (cycle walking; Black and Rogaway, "Ciphers with Arbitrary
    Finite Domains", 2002). It needs no memory and gives the same order with any version of numpy.
    """
    half = np.uint64(max((size - 1).bit_length() + 1, 2) // 2)
    mask = np.uint64((1 << int(half)) - 1)
    keys = _round_keys(key)
    values = positions.astype(np.uint64)
    outside = np.ones(len(values), dtype=bool)
    while outside.any():
        left, right = values[outside] >> half, values[outside] & mask
        for round_key in keys:
            left, right = right, left ^ (_mix(right ^ round_key) & mask)
        values[outside] = (left << half) | right
        outside = values >= np.uint64(size)
    return values.astype(np.int64)


def _round_keys(key: tuple[int, ...]) -> NDArray[np.uint64]:
    """One key per round, absorbing the parts of `key` one after the other."""
    state = np.zeros(1, dtype=np.uint64)
    for part in key:
        state = _mix(state ^ np.uint64(part & 0xFFFF_FFFF_FFFF_FFFF))
    counters: NDArray[np.uint64] = np.arange(1, ROUNDS + 1, dtype=np.uint64)
    return _mix(state ^ counters)


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The output function of SplitMix64 (Steele, Lea and Flood, 2014): 64 bits, each on all others."""
    mixed = values + np.uint64(0x9E37_79B9_7F4A_7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58_476D_1CE4_E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D0_49BB_1331_11EB)
    return mixed ^ (mixed >> np.uint64(31))


def _check_length(tokens: NDArray[Any], context: int, path: Path) -> None:
    if len(tokens) <= context:
        raise DataError(
            f"{path} holds {len(tokens):,} tokens, too few for one window of {context + 1:,}. "
            "Give more text, or a shorter train.context."
        )


def _gather(tokens: NDArray[Any], starts: NDArray[np.int64], context: int) -> NDArray[np.int64]:
    """Tokens [N, T + 1] of the windows that begin at `starts` [N]."""
    chosen: NDArray[Any] = tokens[starts[:, None] + np.arange(context + 1)]
    return chosen.astype(np.int64)
