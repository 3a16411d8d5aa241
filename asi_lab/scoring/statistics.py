"""What a run says: how much it varies by chance, and which differences are beyond that.

Architectures differ in how much their runs vary. A few runs alone say little of a variance, and a pooled one
judges all by whatever varies most. So variances are taken as drawn from a scaled inverse chi-square
distribution, fitted over all architectures that have several runs, and each is estimated between its own runs
and that prior (Smyth 2004, doi 10.2202/1544-6115.1027, as in limma). One run of an architecture has the
prior's variance and the prior's degrees of freedom.
"""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Callable, Sequence
from statistics import fmean, pvariance
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

EXACT = 1e6
"""Degrees of freedom of a prior from which on it is as good as exact."""

LEAST_FOR_FREEDOM = 8
"""Architectures with several runs from which on they themselves say how alike variances are; fewer say next
to nothing of it, and are taken to be as alike as those of a recorded study were."""

REDRAWN, LEAST_REDRAWN = 2000, 3
"""Samples of a bootstrap, and the fewest different members of one that says anything."""

TREND_LEVEL = 0.01
"""The variance follows the mean only where a slope is this unlikely by chance."""


@functools.lru_cache(maxsize=4096)
def _variance(values: tuple[float, ...]) -> float:
    return statistics.variance(values)


def variance(values: Sequence[float]) -> float:
    """The sample variance, to the last bit. That is dear, and asked again and again of the same runs."""
    return _variance(tuple(values))


class Spread(msgspec.Struct, frozen=True):
    """How much a figure varies: `sd`, its standard deviation, known with `freedom` degrees of freedom."""

    sd: float
    freedom: float

    def margin(self, level: float = 0.05) -> float:
        """What it exceeds by chance with probability `level`, to one side (Student's t)."""
        return t_quantile(1 - level, self.freedom) * self.sd


class Prior(msgspec.Struct, frozen=True):
    """What variances are like: about `variance`, as if each had been seen with `freedom` degrees of freedom
    before its own runs. `seen` are the degrees of freedom of all runs that it was fitted to: nothing is known
    better than by all of them. Where the variance follows the mean, its logarithm rises by `slope` for one
    unit of the mean above `centre`; means beyond `low` and `high` are taken as these."""

    variance: float
    freedom: float
    seen: int
    slope: float = 0.0
    centre: float = 0.0
    low: float = 0.0
    high: float = 0.0

    def variance_at(self, mean: float) -> float:
        """The variance that is expected of an architecture with this mean."""
        return self.variance * math.exp(self.slope * (min(max(mean, self.low), self.high) - self.centre))

    def moderated(self, values: Sequence[float]) -> Spread:
        """The spread of one run of the architecture that gave these values, one a run."""
        own, expected = len(values) - 1, self.variance_at(fmean(values))
        if self.freedom >= EXACT:
            return Spread(math.sqrt(expected), self.seen)
        found = variance(values) if own else 0.0
        moderate = (self.freedom * expected + own * found) / (self.freedom + own)
        return Spread(math.sqrt(moderate), min(self.freedom + own, self.seen))

    def of_mean(self, values: Sequence[float]) -> Spread:
        """The spread of the mean of these runs."""
        one = self.moderated(values)
        return Spread(one.sd / math.sqrt(len(values)), one.freedom)

    def of_difference(self, first: Sequence[float], second: Sequence[float]) -> Spread:
        """The spread of the difference between the means of these runs."""
        return self.difference(self.of_mean(first), self.of_mean(second))

    def difference(self, first: Spread, second: Spread) -> Spread:
        """The spread of the difference of two means, each `of_mean`, with the degrees of freedom of Welch and
        Satterthwaite. One run against the mean of many is the prediction of a run: t with the prior's degrees
        of freedom and a few more."""
        whole = first.sd**2 + second.sd**2
        if whole == 0.0:
            return Spread(0.0, self.seen)
        return Spread(math.sqrt(whole), min(_welch(first, second), self.seen))


def prior_of(groups: Sequence[Sequence[float]], freedom: float, *, follow_mean: bool = True) -> Prior | None:
    """The prior from the runs of several architectures; None where none has two runs that differ.

    By moments of log variances: what they vary by beyond chance is what the true ones vary by. With fewer
    than `LEAST_FOR_FREEDOM` architectures its degrees of freedom are `freedom`. Unless told to `follow_mean`,
    the variance is the same whatever the mean.
    """
    known = [group for group in groups if len(group) > 1]
    seen = sum(len(group) - 1 for group in known)
    known = [group for group in known if variance(group) > 0]
    if not known:
        return None
    from scipy.special import polygamma

    owns = [len(group) - 1 for group in known]
    logs = [math.log(variance(group)) + _log_bias(own) for group, own in zip(known, owns, strict=True)]
    means = [fmean(group) for group in known]
    slope, centre = _trend(means, logs) if follow_mean else 0.0, fmean(means)
    rests = [one - slope * (mean - centre) for one, mean in zip(logs, means, strict=True)]
    middle, chance = fmean(rests), fmean(float(polygamma(1, own / 2)) for own in owns)
    if len(known) >= LEAST_FOR_FREEDOM:
        fitted = 2 if slope else 1
        between = sum((one - middle) ** 2 for one in rests) / (len(rests) - fitted) - chance
    else:
        between = float(polygamma(1, freedom / 2))
    shape = seen, slope, centre, min(means), max(means)
    if between > 2 / EXACT:
        of_middle = (between + chance) / len(known)  # the variance of a mean over few is not exact either
        freedom = 2 * _trigamma_inverse(between + of_middle)
        return Prior(math.exp(middle - _log_bias(freedom)), freedom, *shape)
    rested = [math.exp(-slope * (mean - centre)) for mean in means]
    pool = sum(own * variance(group) * rest for own, group, rest in zip(owns, known, rested, strict=True))
    return Prior(pool / sum(owns), EXACT, *shape)


def spread_of_difference(first: Sequence[float], second: Sequence[float]) -> Spread | None:
    """The spread of the difference between the means of two samples that need not vary alike (Welch 1947);
    None where one of them holds fewer than two values, or neither varies."""
    if min(len(first), len(second)) < 2 or variance(first) + variance(second) == 0.0:
        return None
    one, other = (Spread(math.sqrt(variance(v) / len(v)), len(v) - 1) for v in (first, second))
    return Spread(math.hypot(one.sd, other.sd), _welch(one, other))


def _welch(first: Spread, second: Spread) -> float:
    """The degrees of freedom of a difference of means, by Welch and Satterthwaite."""
    squares = [spread.sd**2 for spread in (first, second)]
    weighed = sum(square**2 / spread.freedom for square, spread in zip(squares, (first, second), strict=True))
    return sum(squares) ** 2 / weighed


def pooled(groups: Sequence[Sequence[float]]) -> float:
    """Standard deviation within groups, pooled over them."""
    freedom = sum(len(group) - 1 for group in groups)
    return math.sqrt(sum((len(group) - 1) * variance(group) for group in groups if len(group) > 1) / freedom)


def t_quantile(p: float, freedom: float) -> float:
    """Quantile of Student's t."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, p))


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """Spearman's rank correlation of pairs, and its 95 % interval over pairs drawn again."""
    import numpy as np

    pairs = np.array([first, second], dtype=np.float64)
    return spearman(pairs), redrawn(pairs, spearman)


def spearman(pairs: NDArray[np.float64]) -> float:
    """Spearman's rank correlation of pairs `[2, N]`."""
    from scipy.stats import spearmanr

    return float(spearmanr(pairs[0], pairs[1]).statistic)


def redrawn(pairs: NDArray[np.float64], of: Callable[[NDArray[np.float64]], float]) -> tuple[float, float]:
    """The 95 % interval of a figure of pairs `[2, N]`, over pairs drawn again."""
    import numpy as np

    rng, count, drawn = np.random.default_rng(0), pairs.shape[1], list[float]()
    while len(drawn) < REDRAWN:
        chosen = rng.integers(count, size=count)
        if len(np.unique(chosen)) >= LEAST_REDRAWN:
            drawn.append(of(pairs[:, chosen]))
    low, high = (float(bound) for bound in np.nanpercentile(drawn, [2.5, 97.5]))
    return low, high


def sd_interval(spread: Spread) -> tuple[float, float]:
    """95 % interval of a standard deviation."""
    from scipy.special import chdtri

    low, high = (spread.freedom / float(chdtri(spread.freedom, p)) for p in (0.025, 0.975))
    return spread.sd * math.sqrt(low), spread.sd * math.sqrt(high)


def _log_bias(freedom: float) -> float:
    """What the logarithm of a variance that is seen with so many degrees of freedom lacks on average."""
    from scipy.special import digamma

    return math.log(freedom / 2) - float(digamma(freedom / 2))


def _trend(means: Sequence[float], logs: Sequence[float]) -> float:
    """The slope of log variances over means; 0 where too few are known, or it may be chance."""
    count, spread = len(means), pvariance(means)
    if count < LEAST_FOR_FREEDOM or spread == 0.0:
        return 0.0
    centre, middle = fmean(means), fmean(logs)
    slope = fmean((x - centre) * (y - middle) for x, y in zip(means, logs, strict=True)) / spread
    left = fmean((y - middle - slope * (x - centre)) ** 2 for x, y in zip(means, logs, strict=True))
    error = math.sqrt(left / spread / (count - 2))
    return slope if abs(slope) > t_quantile(1 - TREND_LEVEL / 2, count - 2) * error else 0.0


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
