"""Probes: what a layer can learn in seconds on synthetic streams, one ability at a time.

A probe trains a tiny model around the candidate's layer, freshly initialised, on streams that a trial
generates for itself, and asks it for the answers of other streams, which the scoring process generates. The
definitions here are frozen: figures of one probe compare in all labs of one set of rules.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import msgspec
import numpy as np

from asi_lab.data.probes import recall, tracking
from asi_lab.data.probes.streams import NOTHING, Streams
from asi_lab.settings import ModelSettings, Train

__all__ = ["MODEL", "NAMES", "NOTHING", "PROBES", "Probe", "Streams", "title_of"]

MODEL = ModelSettings(layers=2, width=64, heads=2, mlp_ratio=2.0, init_std=0.2, tie_embeddings=False)
"""The tiny model around the candidate's layer."""

MARKS = 4
"""Points of a probe's curve: at equal distances, the last at the end of its training."""

TESTS = 256
"""Streams of a test, of all lengths together."""

Generate = Callable[..., Streams]


class Probe(msgspec.Struct, frozen=True):
    """One probe: its streams and how it is trained.

    `title` is what it is called in sentences, `asks` what it asks for in the words of the field.
    `vocabulary` counts all tokens, `choices` the possible answers. Where a stream can have any length, those
    of `trained_on` tokens are learnt and those of `lengths` tested; else all have one.
    """

    name: str
    title: str
    asks: str
    generate: Generate
    vocabulary: int
    choices: int
    steps: int = 120
    batch: int = 40
    learning_rate: float = 1e-2
    trained_on: int | None = None
    lengths: tuple[int, ...] = ()

    def training(self, seed: int) -> list[Streams]:
        """The batches of a training, one for each step."""
        rng = np.random.default_rng(seed)
        of_length = {} if self.trained_on is None else {"length": self.trained_on}
        whole = self.generate(rng, self.steps * self.batch, **of_length)
        parts = range(0, self.steps * self.batch, self.batch)
        return [Streams(whole.ids[at : at + self.batch], whole.answers[at : at + self.batch]) for at in parts]

    def tests(self, seed: int) -> list[Streams]:
        """The test streams, those of one length together."""
        rng = np.random.default_rng(seed)
        if not self.lengths:
            return [self.generate(rng, TESTS)]
        return [self.generate(rng, TESTS // len(self.lengths), length=length) for length in self.lengths]

    @property
    def chance(self) -> float:
        """The probability that a model which knows nothing gives to an answer."""
        return 1 / self.choices

    @property
    def marks(self) -> tuple[int, ...]:
        """The steps after which the model is tested."""
        return tuple(self.steps * mark // MARKS for mark in range(1, MARKS + 1))

    @property
    def train(self) -> Train:
        """How it is trained, in the words of a lab's settings."""
        return Train(
            steps=self.steps,
            batch=self.batch,
            micro_batch=self.batch,
            context=1,
            learning_rate=self.learning_rate,
            schedule="cosine",
            warmup_steps=max(1, self.steps // 10),
            weight_decay=0.01,
            precision="fp32",
            compile="off",
            save_minutes=0.0,
        )


_TABLE = (
    Probe(
        "probe_mqar",
        "multi-query recall",
        "associative recall of many values by their keys, capacity of the state for associations",
        functools.partial(recall.multi_query, pairs=4, keys=12, values=8),
        vocabulary=20,
        choices=8,
    ),
    Probe(
        "probe_reassigned",
        "recall with reassigned keys",
        "a stale old value that is erased and overwritten by the latest value of its key, the delta rule",
        functools.partial(recall.reassigned, pairs=4, writes=8, keys=12, values=8),
        vocabulary=20,
        choices=8,
    ),
    Probe(
        "probe_compositional",
        "recall by two tokens together",
        "keys composed of several tokens, interaction between neighbouring tokens, short convolution",
        functools.partial(recall.compositional, pairs=5, parts=4, values=8),
        vocabulary=16,
        choices=8,
    ),
    Probe(
        "probe_fuzzy",
        "recall by keys of one to three tokens",
        "keys of varying length, local context in keys, short convolution",
        functools.partial(recall.fuzzy, pairs=3, keys=8, values=8),
        vocabulary=17,
        choices=8,
    ),
    Probe(
        "probe_noisy",
        "recall among noise",
        "recall of values by their keys where most tokens are irrelevant, selectivity, gating of writes",
        functools.partial(recall.noisy, pairs=4, keys=12, values=8, noise=6, kinds=6),
        vocabulary=26,
        choices=8,
    ),
    Probe(
        "probe_selective_copy",
        "selective copying",
        "copying what is relevant in its order, position, selectivity",
        functools.partial(recall.selective_copy, copied=4, symbols=8, noise=8, kinds=4),
        vocabulary=13,
        choices=8,
    ),
    Probe(
        "probe_parity",
        "state tracking (parity)",
        "state tracking, negative eigenvalues, expressive state transitions, length generalisation",
        tracking.parity,
        vocabulary=4,
        choices=2,
        batch=24,
        trained_on=32,
        lengths=(64, 128),
    ),
    Probe(
        "probe_s3",
        "state tracking (S3)",
        "state tracking, non-commutative permutations, products of reflections, length generalisation",
        tracking.s3,
        vocabulary=12,
        choices=6,
        batch=24,
        trained_on=32,
        lengths=(64, 128),
    ),
)
PROBES = {probe.name: probe for probe in _TABLE}
NAMES = tuple(PROBES)


def title_of(task: str) -> str | None:
    """What a probe is called in sentences; None for any other task."""
    probe = PROBES.get(task)
    return probe.title if probe else None
