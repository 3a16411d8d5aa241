"""The finished candidates by merit, beside the baselines, with what luck alone would give.

All figures are judged by the noise floor as it is known now, against the mean of all runs of the
seed architecture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

import msgspec

from asi_lab.lab import Store
from asi_lab.lab.summary import Summary
from asi_lab.records import SEED_ID, BaselineRun, CandidateState, Noise
from asi_lab.scoring import fitness
from asi_lab.scoring.baselines import ARCHITECTURES, MARKS, SEED_ARCHITECTURE, Baselines, winning_margin
from asi_lab.settings import Settings

LEVEL = 0.05
"""Chance of a single false win: a candidate no better than the baseline is marked this often."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One line. `rank` and `id` are None for a baseline, whose figures are means of `runs`.

    `gain` is the relative improvement in loss over DeltaNet's mean, `gain_in_noise` the same in units
    of the spread of that difference, `beats_baseline` whether it passes the one-sided t-test. `beyond` are
    points above the end of the judge's scale, which count for the rank alone.
    """

    rank: int | None
    id: int | None
    name: str
    parent: int | None
    runs: int
    loss: float
    gain: float
    gain_in_noise: float | None
    beats_baseline: bool
    benchmark_gain: float
    judge: float
    fitness: float
    params: int | None
    commit: str | None
    beyond: float = 0.0


class Board(msgspec.Struct, frozen=True):
    """The leaderboard of a lab.

    `margin` is how far (nats per token) under the baseline a single run must be to win at `level`;
    `expected_by_luck` is how many of the `scored` candidates would do so if none were better.
    """

    noise: Noise
    margin: float
    level: float
    baselines: tuple[Row, ...]
    candidates: tuple[Row, ...]
    scored: int
    beating: int
    expected_by_luck: float


class Standing(msgspec.Struct, frozen=True):
    """A held-out loss against the mean of the seed architecture. `difference` is in nats per token,
    negative when better; `gain` is relative, positive when better."""

    difference: float
    gain: float
    gain_in_noise: float | None
    beats_baseline: bool


def measured(settings: Settings, runs: Sequence[BaselineRun]) -> Baselines | None:
    """The baselines, None as long as too few of their runs are finished."""
    have = [sum(run.architecture == name for run in runs) for name in ARCHITECTURES]
    return Baselines(settings, runs) if min(have) >= settings.baselines.seeds else None


def standing(loss: float, baselines: Baselines, runs: int = 1) -> Standing:
    """Compare a loss, the mean over `runs` runs, with the baseline's mean."""
    noise = baselines.noise()
    return _standing(loss, baselines.mean.loss, noise, winning_margin(noise, LEVEL), runs)


def _standing(loss: float, mean: float, noise: Noise, margin: float, runs: int = 1) -> Standing:
    """`runs` is how many runs `loss` is the mean of; `margin` is that of a single run."""
    spread = noise.loss * math.sqrt(1 / runs + 1 / noise.runs)
    return Standing(
        difference=loss - mean,
        gain=(mean - loss) / mean,
        gain_in_noise=(mean - loss) / spread if spread > 0 else None,
        beats_baseline=mean - loss > margin * math.sqrt((1 / runs + 1 / noise.runs) / (1 + 1 / noise.runs)),
    )


def read(store: Store, settings: Settings) -> Board | None:
    """The board of a store, None before the baselines are measured."""
    baselines = measured(settings, store.baselines())
    return None if baselines is None else board(baselines, store.summaries())


def board(baselines: Baselines, summaries: Sequence[Summary]) -> Board:
    """Rank the finished candidates; the seed stands among the baselines."""
    noise = baselines.noise()
    margin = winning_margin(noise, LEVEL)
    done = [s for s in summaries if s.id != SEED_ID and s.state is CandidateState.DONE]
    done.sort(key=lambda s: (-(s.merit or 0.0), s.id))
    rows = tuple(_row(s, rank, baselines.mean.loss, noise, margin) for rank, s in enumerate(done, start=1))
    return Board(
        noise=noise,
        margin=margin,
        level=LEVEL,
        baselines=tuple(_baseline(name, baselines, noise, margin) for name in ARCHITECTURES),
        candidates=rows,
        scored=len(rows),
        beating=sum(row.beats_baseline for row in rows),
        expected_by_luck=LEVEL * len(rows),
    )


def _row(summary: Summary, rank: int, mean: float, noise: Noise, margin: float) -> Row:
    assert summary.loss is not None
    assert summary.fitness is not None
    assert summary.benchmark_gain is not None
    assert summary.judge is not None
    against = _standing(summary.loss, mean, noise, margin)
    return Row(
        rank=rank,
        id=summary.id,
        name=summary.name,
        parent=summary.parent,
        runs=1,
        loss=summary.loss,
        gain=against.gain,
        gain_in_noise=against.gain_in_noise,
        beats_baseline=against.beats_baseline,
        benchmark_gain=summary.benchmark_gain,
        judge=summary.judge,
        fitness=summary.fitness,
        params=summary.params,
        commit=summary.commit,
        beyond=summary.beyond,
    )


def _baseline(name: str, baselines: Baselines, noise: Noise, margin: float) -> Row:
    runs = baselines.evaluations(name)
    loss = fmean(run.loss for run in runs)
    against = _standing(loss, baselines.mean.loss, noise, margin, len(runs))
    is_seed = name == SEED_ARCHITECTURE
    measured_parts = fmean(sum(fitness.parts(run, baselines.reference)) for run in runs)
    return Row(
        rank=None,
        id=SEED_ID if is_seed else None,
        name=name,
        parent=None,
        runs=len(runs),
        loss=loss,
        gain=against.gain,
        gain_in_noise=None if is_seed else against.gain_in_noise,
        beats_baseline=not is_seed and against.beats_baseline,
        benchmark_gain=fmean(fitness.benchmark_gain(run, baselines.reference) for run in runs),
        judge=MARKS[name],
        fitness=fitness.composite([measured_parts], fitness.judged(MARKS[name] - 1)),
        params=baselines.anchor(name).params,
        commit=None,
    )
