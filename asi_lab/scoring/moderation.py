"""The variance of a run, by architecture: its own few runs, moderated by those of all others.

Architectures differ in how much their runs vary. Three runs alone say little of a variance, and a pooled one
judges all by whatever varies most. So variances are taken as drawn from a scaled inverse chi-square
distribution, fitted over all architectures that have several runs, and each is estimated between its own runs
and that prior (Smyth 2004, doi 10.2202/1544-6115.1027, as in limma). A single run has the prior's variance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, variance

import msgspec

LEAST_GROUPS = 3
"""Architectures with several runs from which on their variances are told apart; those of fewer are pooled."""

EXACT = 1e6
"""Degrees of freedom of a prior from which on it is as good as exact."""


class Spread(msgspec.Struct, frozen=True):
    """How much one run varies: `sd`, its standard deviation, known with `freedom` degrees of freedom."""

    sd: float
    freedom: float


class Prior(msgspec.Struct, frozen=True):
    """What variances are like: about `variance`, as if each had been seen with `freedom` degrees of freedom
    before its own runs. `seen` are the degrees of freedom of all runs that it was fitted to: nothing is known
    better than by all of them."""

    variance: float
    freedom: float
    seen: int

    def moderated(self, values: Sequence[float]) -> Spread:
        """The spread of the architecture that gave these values, one a run."""
        own = len(values) - 1
        if self.freedom >= EXACT:
            return Spread(math.sqrt(self.variance), self.seen)
        found = variance(values) if own else 0.0
        moderate = (self.freedom * self.variance + own * found) / (self.freedom + own)
        return Spread(math.sqrt(moderate), min(self.freedom + own, self.seen))


def prior_of(groups: Sequence[Sequence[float]]) -> Prior | None:
    """The prior from the runs of several architectures; None where none has two runs that differ.

    By moments of log variances: what they vary by beyond chance is what the true ones vary by.
    """
    known = [(variance(group), len(group) - 1) for group in groups if len(group) > 1]
    seen = sum(freedom for _, freedom in known)
    known = [(found, freedom) for found, freedom in known if found > 0]
    if not known:
        return None
    pooled = sum(freedom * found for found, freedom in known) / seen
    if len(known) < LEAST_GROUPS:
        return Prior(pooled, EXACT, seen)
    from scipy.special import digamma, polygamma

    logs = [math.log(found) - float(digamma(own / 2)) + math.log(own / 2) for found, own in known]
    centre = fmean(logs)
    chance = fmean(float(polygamma(1, own / 2)) for _, own in known)
    beyond = sum((one - centre) ** 2 for one in logs) / (len(logs) - 1) - chance
    freedom = 2 * _trigamma_inverse(beyond) if beyond > 0 else EXACT
    if freedom >= EXACT:
        return Prior(pooled, EXACT, seen)
    return Prior(math.exp(centre + float(digamma(freedom / 2)) - math.log(freedom / 2)), freedom, seen)


def of_difference(first: Sequence[float], second: Sequence[float], prior: Prior) -> Spread:
    """The spread of the difference of two means, each over the runs of an architecture, with the degrees of
    freedom of Welch and Satterthwaite over moderated variances."""
    parts = [(prior.moderated(values), len(values)) for values in (first, second)]
    squares = [spread.sd**2 / count for spread, count in parts]
    whole = sum(squares)
    if prior.freedom >= EXACT or whole == 0.0:
        return Spread(math.sqrt(whole), prior.seen)
    weighed = sum(square**2 / spread.freedom for square, (spread, _) in zip(squares, parts, strict=True))
    return Spread(math.sqrt(whole), min(whole**2 / weighed, prior.seen))


def _trigamma_inverse(wanted: float) -> float:
    """Where the trigamma function has this value, by Newton's method on its reciprocal, which is convex."""
    from scipy.special import polygamma

    x = 0.5 + 1.0 / wanted
    for _ in range(50):
        value = float(polygamma(1, x))
        step = value * (1.0 - value / wanted) / float(polygamma(2, x))
        x += step
        if -step / x < 1e-10:
            break
    return x
