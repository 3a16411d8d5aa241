"""Fair learning rates: the best rate of each reference, and how the order at one rate for all compares.

Rankings at one fixed learning rate can reverse, since architectures differ in the rate that suits them. So
each reference is trained at several rates with seeds of tuning's own, the same at each rate, which count
nowhere else. Everything here depends on the runs that have ended alone, in whatever order they came: who is
cut off goes on where it was.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev

import msgspec

from asi_lab.records import TUNING_SEED, BaselineRun, Run

RATES = (0.5, 1.0, 2.0)
"""Learning rates over the preset's at which every reference is tuned."""

FURTHER = 2
"""So many times the rate is doubled, or halved, beyond these while the best lies at the edge."""

LEAST_SEEDS = 3

LEAST_RANKED = 3
"""References from which on a rank correlation says anything."""


class Tuned(msgspec.Struct, frozen=True):
    """One reference. `losses` has, by rate over the preset's, the mean held-out loss (nats per token) over
    the seeds of tuning, None where a run failed; rates whose runs have not all ended are left out.

    `best` is the rate of the lowest, but the preset's where that is within noise, then `is_tie` is true; None
    before all has ended that it takes, or where every rate failed. `gain` is the mean of the paired
    differences between the preset's rate and the lowest one (nats per token), `error` its standard error;
    both None where the preset's is the lowest, or failed.
    """

    architecture: str
    losses: dict[float, float | None]
    best: float | None
    is_tie: bool = False
    gain: float | None = None
    error: float | None = None


class Rate(msgspec.Struct, frozen=True):
    """One learning rate for all: over the preset's, and in itself. `correlation` is Spearman's between the
    order of the references there, over the seeds of tuning, and that of their counted runs at their own best
    rates; None where not all have that rate, or they are too few. Who failed comes last."""

    rate: float
    learning_rate: float
    correlation: float | None


class Tuning(msgspec.Struct, frozen=True):
    """What tuning gave, over `seeds` seeds. `highest` is the rate whose order agrees best with that at own
    best rates: the one that a preset is to have. None where none compares."""

    seeds: int
    lanes: tuple[Tuned, ...]
    rates: tuple[Rate, ...]
    highest: float | None


def wanted(architectures: Sequence[str], seeds: int, ended: Sequence[BaselineRun]) -> list[Run]:
    """The runs of tuning, seed by seed, as far as those that have ended tell. A rate at which a run failed
    takes no further ones."""
    tables = {name: _Table(name, seeds, ended) for name in architectures}
    return [
        Run(name, TUNING_SEED + seed, rate)
        for seed in range(seeds)
        for name, table in tables.items()
        for rate in table.rates()
        if not table.fails(rate)
    ]


def best_rates(
    architectures: Sequence[str], seeds: int, ended: Sequence[BaselineRun]
) -> dict[str, float | None]:
    """The best rate of each; None before all has ended that it takes, or where every rate failed."""
    return {name: _Table(name, seeds, ended).tuned().best for name in architectures}


def tuned(
    architectures: Sequence[str],
    seeds: int,
    ended: Sequence[BaselineRun],
    learning_rate: float,
    own: Mapping[str, float],
) -> Tuning:
    """What tuning gave. `learning_rate` is the preset's; `own` are the mean losses (nats per token) of the
    counted runs at own best rates."""
    lanes = tuple(_Table(name, seeds, ended).tuned() for name in architectures)
    factors = sorted({rate for lane in lanes for rate in lane.losses})
    rates = tuple(Rate(rate, rate * learning_rate, _correlation(lanes, rate, own)) for rate in factors)
    known = [rate for rate in rates if rate.correlation is not None]
    best = max(known, key=lambda rate: (rate.correlation or 0.0, -abs(math.log(rate.rate))), default=None)
    return Tuning(seeds, lanes, rates, best.rate if best else None)


def _correlation(lanes: Sequence[Tuned], rate: float, own: Mapping[str, float]) -> float | None:
    ranked = [lane for lane in lanes if lane.architecture in own]
    if len(ranked) < LEAST_RANKED or not all(rate in lane.losses for lane in ranked):
        return None
    found = [lane.losses[rate] for lane in ranked]
    here = [math.inf if loss is None else loss for loss in found]
    return spearman(here, [own[lane.architecture] for lane in ranked])


def spearman(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's rank correlation, ties with their mean rank; None where all of one are tied."""
    from scipy.stats import rankdata

    ranks = [rankdata(values) - (len(values) + 1) / 2 for values in (first, second)]
    squares = math.prod(float(one @ one) for one in ranks)
    return float(ranks[0] @ ranks[1]) / math.sqrt(squares) if squares else None


class _Table:
    """The runs of tuning of one reference, by rate and seed."""

    def __init__(self, architecture: str, seeds: int, ended: Sequence[BaselineRun]) -> None:
        self.architecture = architecture
        self._seeds = range(TUNING_SEED, TUNING_SEED + seeds)
        self._runs = {
            (run.rate, run.seed_index): run for run in ended if run.architecture == self.architecture
        }

    def fails(self, rate: float) -> bool:
        """Whether a run failed there."""
        return any(run is not None and bool(run.failure) for run in self._at(rate))

    def rates(self) -> list[float]:
        """The rates that it takes, lowest first, as far as is known."""
        rates = list(RATES)
        for _ in range(2 * FURTHER):
            if not all(self._is_settled(rate) for rate in rates):
                break
            lowest = self._lowest(rates)
            if lowest == rates[-1] < RATES[-1] * 2**FURTHER:
                rates.append(2 * rates[-1])
            elif lowest == rates[0] > RATES[0] / 2**FURTHER:
                rates.insert(0, rates[0] / 2)
            else:
                break
        return rates

    def tuned(self) -> Tuned:
        """What came out, as far as it did."""
        rates = self.rates()
        settled = [rate for rate in rates if self._is_settled(rate)]
        losses = {rate: None if self.fails(rate) else fmean(self._losses(rate)) for rate in settled}
        if len(settled) < len(rates):
            return Tuned(self.architecture, losses, None)
        lowest = self._lowest(rates)
        if lowest is None or lowest == 1.0 or self.fails(1.0):
            return Tuned(self.architecture, losses, lowest)
        pairs = zip(self._losses(1.0), self._losses(lowest), strict=True)
        gains = [preset - other for preset, other in pairs]
        gain, error = fmean(gains), stdev(gains) / math.sqrt(len(gains))
        is_tie = gain <= error
        return Tuned(self.architecture, losses, 1.0 if is_tie else lowest, is_tie, gain, error)

    def _at(self, rate: float) -> list[BaselineRun | None]:
        return [self._runs.get((rate, seed)) for seed in self._seeds]

    def _is_settled(self, rate: float) -> bool:
        return self.fails(rate) or None not in self._at(rate)

    def _losses(self, rate: float) -> list[float]:
        """In the order of the seeds."""
        return [run.evidence.measured.loss for run in self._at(rate) if run is not None]

    def _lowest(self, rates: Sequence[float]) -> float | None:
        whole = [rate for rate in rates if not self.fails(rate)]
        return min(whole, key=lambda rate: fmean(self._losses(rate)), default=None)
