"""Streams that ask for what stood in them: keys with their values, and symbols to copy.

Pairs come first, then all keys once more in another order; at each of these the value is asked for.
Definitions after Zoology (arXiv 2312.04927, section 4) and MAD (arXiv 2403.17844, section 3), with every key
asked once and no answer among the tokens.
"""

from __future__ import annotations

import numpy as np

from asi_lab.data.probes.streams import (
    NOTHING,
    Booleans,
    Ints,
    Streams,
    distinct,
    joined,
    laid_out,
    packed,
    shuffled,
)


def multi_query(rng: np.random.Generator, count: int, *, pairs: int, keys: int, values: int) -> Streams:
    """Multi-query associative recall: `pairs` different keys of `keys`, each with a value."""
    key = distinct(rng, count, keys, pairs)
    value = keys + rng.integers(values, size=key.shape)
    return joined(laid_out(np.stack([key, value], 2)), _queries(rng, key, value))


def reassigned(
    rng: np.random.Generator, count: int, *, pairs: int, writes: int, keys: int, values: int
) -> Streams:
    """`writes` pairs of `pairs` different keys, each at least once: the last value of a key counts."""
    key = distinct(rng, count, keys, pairs)
    more = np.take_along_axis(key, rng.integers(pairs, size=(count, writes - pairs)), 1)
    (written,) = shuffled(rng, np.concatenate([key, more], 1))
    value = keys + rng.integers(values, size=written.shape)
    is_it = written[:, None, :] == key[:, :, None]
    last = writes - 1 - is_it[:, :, ::-1].argmax(2)
    return joined(
        laid_out(np.stack([written, value], 2)), _queries(rng, key, np.take_along_axis(value, last, 1))
    )


def compositional(rng: np.random.Generator, count: int, *, pairs: int, parts: int, values: int) -> Streams:
    """A first and a second token, of `parts` each, together name the value: neither does alone."""
    first, second = np.divmod(distinct(rng, count, parts * parts, pairs), parts)
    second += parts
    value = 2 * parts + rng.integers(values, size=first.shape)
    asked = shuffled(rng, first, second, value)
    return joined(laid_out(np.stack([first, second, value], 2)), laid_out(np.stack(asked[:2], 2), asked[2]))


def fuzzy(rng: np.random.Generator, count: int, *, pairs: int, keys: int, values: int) -> Streams:
    """Keys of one to three tokens of `keys`, each behind a mark; the value is asked for at a key's last."""
    longest, mark = 3, keys + values
    size = rng.integers(1, longest + 1, size=(count, pairs))
    key = rng.integers(keys, size=(count, pairs, longest))
    while len(again := np.flatnonzero(_repeats(size, key, keys))):
        size[again] = rng.integers(1, longest + 1, size=(len(again), pairs))
        key[again] = rng.integers(keys, size=(len(again), pairs, longest))
    value = keys + rng.integers(values, size=size.shape)
    order = rng.random(size.shape).argsort(1)
    asked_key, asked_size = np.take_along_axis(key, order[:, :, None], 1), np.take_along_axis(size, order, 1)
    marks = np.full((count, pairs, 1), mark)
    # The last token of a key stands last of three, so that answers are asked for in one place.
    shown = joined(
        laid_out(np.concatenate([marks, key, value[:, :, None]], 2)),
        laid_out(np.concatenate([marks, asked_key], 2), np.take_along_axis(value, order, 1)),
    )
    kept = np.concatenate(
        [_kept(size, longest, valued=True), _kept(asked_size, longest, valued=False)], axis=1
    )
    return packed(shown, kept, mark)


def noisy(
    rng: np.random.Generator, count: int, *, pairs: int, keys: int, values: int, noise: int, kinds: int
) -> Streams:
    """Multi-query recall with `noise` tokens, of `kinds`, strewn among the pairs and as many among the
    queries."""
    key = distinct(rng, count, keys, pairs)
    value = keys + rng.integers(values, size=key.shape)
    asked = shuffled(rng, key, value)
    written = _strewn(rng, laid_out(np.stack([key, value], 2)), 2, noise, keys + values, kinds)
    queries = laid_out(asked[0][:, :, None], asked[1])
    return joined(written, _strewn(rng, queries, 1, noise, keys + values, kinds))


def selective_copy(
    rng: np.random.Generator, count: int, *, copied: int, symbols: int, noise: int, kinds: int
) -> Streams:
    """`copied` symbols strewn among `noise` tokens of `kinds`, then as many marks: at each the next of the
    symbols is asked for, in their order."""
    symbol = rng.integers(symbols, size=(count, copied))
    among = _strewn(rng, laid_out(symbol[:, :, None]), 1, noise, symbols, kinds)
    return joined(among, laid_out(np.full((count, copied, 1), symbols + kinds), symbol))


def _queries(rng: np.random.Generator, key: Ints, value: Ints) -> Streams:
    asked, wanted = shuffled(rng, key, value)
    return laid_out(asked[:, :, None], wanted)


def _repeats(size: Ints, key: Ints, keys: int) -> Booleans:
    """Whether a key occurs twice, for each stream [N]."""
    names = np.zeros_like(size)
    for place in range(key.shape[2]):
        names = names * (keys + 1) + np.where(place >= key.shape[2] - size, key[:, :, place] + 1, 0)
    names.sort(1)
    repeated: Booleans = (names[:, 1:] == names[:, :-1]).any(1)
    return repeated


def _kept(size: Ints, longest: int, *, valued: bool) -> Booleans:
    """Which tokens of each item (mark, three of the key, value) are there [N, K * W]."""
    width = 1 + longest + valued
    places = np.arange(width)
    absent = (places > 0) & (places <= longest - size[:, :, None])
    kept: Booleans = ~absent.reshape(len(size), -1)
    return kept


def _strewn(
    rng: np.random.Generator, streams: Streams, width: int, noise: int, first: int, kinds: int
) -> Streams:
    """Items of `width` tokens with `noise` tokens between them, from `first` on; their order stays."""
    count, items = len(streams.ids), streams.ids.shape[1] // width
    is_item = distinct(rng, count, items + noise, items + noise) < items
    ids = np.zeros((count, items + noise, width), np.int64)
    answers = np.full(ids.shape, NOTHING)
    ids[~is_item, 0] = first + rng.integers(kinds, size=count * noise)
    ids[is_item] = streams.ids.reshape(-1, width)
    answers[is_item] = streams.answers.reshape(-1, width)
    kept = np.ones(ids.shape, bool)
    kept[~is_item, 1:] = False
    whole = Streams(ids.reshape(count, -1), answers.reshape(count, -1))
    return packed(whole, kept.reshape(count, -1), 0)
