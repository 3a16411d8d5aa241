"""What is claimed of a candidate, and how sure that is: fresh runs against the bar's, at a stated error rate.

The procedure was chosen by simulation (docs/benchmarks.md). A promoted candidate is run with fresh seeds and
fresh orders of the data until `CAP` runs are there. Looks in between stop for futility alone, so a claim that
stops has p = 1 and one that goes on always has all runs. Each ended claim is one of a family: Benjamini and
Hochberg's procedure over all of them gives the table of today, LORD++ (arXiv 1710.00499) in the order of
promotion the tags that are never taken back. All is a pure function of the runs; none of them is one that the
search chose by.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from statistics import fmean

import msgspec

from asi_lab.records import FreshLoss
from asi_lab.scoring.statistics import Prior, prior_of, t_quantile, variance

CAP = 12
"""Runs of a claim that is not dropped."""

LOOKS = (2, 3, 4, 6, 8, 10)
"""Runs after which a claim may be dropped."""

LEVEL = 0.05
"""The false-discovery rate of what holds, and that of the tags."""

DESIGN = 1.25
"""The gain, in sds of one run, that a claim is given a chance for."""

LEAST_POWER = 0.1
"""A claim is dropped where a gain of `DESIGN` would still be found with less than this probability."""

PLANNED_LEVEL = 0.003
"""At which level it would have to be found: what Benjamini and Hochberg ask for where about every tenth claim
is true."""

MOST_FREEDOM = 20.0
"""Degrees of freedom of the prior of variances count no further."""

USUAL_RUNS = 6.2
"""Fresh runs of a claim on average, by simulation (docs/benchmarks.md)."""

LORD_START = LEVEL / 2
"""Of the level, what LORD++ begins with."""

LORD_DECAY = 1.6
"""LORD++ spends its level on later claims by this power of their distance."""


class Gain(msgspec.Struct, frozen=True):
    """How far a candidate's mean held-out loss lies under the bar's (nats per token), with the standard error
    of that, its degrees of freedom, and the probability of seeing as much where there is no gain."""

    gain: float
    error: float
    freedom: float
    p: float

    def interval(self, level: float) -> tuple[float, float]:
        """The two-sided interval that misses the true gain with probability `level`."""
        half = t_quantile(1 - level / 2, self.freedom) * self.error
        return self.gain - half, self.gain + half


def prior(groups: Sequence[Sequence[FreshLoss]], freedom: float) -> Prior | None:
    """What variances are like, by the fresh runs of the bar and of claims; None where no two runs differ.
    `freedom` is that of a recorded study, for as long as the groups are few."""
    return _prior(tuple(map(tuple, groups)), freedom)


@functools.lru_cache(maxsize=2048)
def _prior(groups: tuple[tuple[FreshLoss, ...], ...], freedom: float) -> Prior | None:
    found = prior_of(groups, freedom, follow_mean=False)
    return found and msgspec.structs.replace(found, freedom=min(found.freedom, MOST_FREEDOM))


def gain(losses: Sequence[FreshLoss], bar: Sequence[FreshLoss], known: Prior) -> Gain:
    """What these fresh runs of a candidate, one loss each (nats per token), say against the bar's.

    One-sided t. The degrees of freedom are the fewer of the candidate's and of the bar's: those of Welch and
    Satterthwaite have tails that are too heavy at the levels that count here.
    """
    from scipy.special import stdtr

    own = len(losses) - 1
    error = math.sqrt(_moderated(losses, known) / len(losses) + variance(bar) / len(bar))
    freedom = min(known.freedom + own, len(bar) - 1)
    found = fmean(bar) - fmean(losses)
    return Gain(found, error, freedom, float(stdtr(freedom, -found / error)))


def is_futile(losses: Sequence[FreshLoss], bar: Sequence[FreshLoss], known: Prior) -> bool:
    """Whether a claim with these runs is dropped: at a look, by conditional power."""
    from scipy.special import ndtr

    have = len(losses)
    if have not in LOOKS:
        return False
    square, of_bar = _moderated(losses, known), variance(bar) / len(bar)
    sd, left = math.sqrt(square), CAP - have
    expected = (have * (fmean(bar) - fmean(losses)) + left * DESIGN * sd) / CAP
    freedom = min(known.freedom + CAP - 1, len(bar) - 1)
    needed = t_quantile(1 - PLANNED_LEVEL, freedom) * math.sqrt(square / CAP + of_bar)
    return float(ndtr((expected - needed) / (sd * math.sqrt(left) / CAP))) < LEAST_POWER


def _moderated(losses: Sequence[FreshLoss], known: Prior) -> float:
    own = len(losses) - 1
    return (known.freedom * known.variance + own * variance(losses)) / (known.freedom + own)


def power(gain: float, bar_variance: float, bar: int, freedom: float) -> float:
    """About how often a claim with a true gain of so many of its own sds is found where every tenth is true.

    Args:
        gain: in sds of one of its runs.
        bar_variance: that of a run of the bar over that of one of its own.
        bar: runs of the bar.
        freedom: of the prior of variances.
    """
    from scipy.special import nctdtr

    exact = min(min(freedom, MOST_FREEDOM) + CAP - 1, bar - 1)
    shift = gain / math.sqrt(1 / CAP + bar_variance / bar)
    return 1.0 - float(nctdtr(exact, shift, t_quantile(1 - PLANNED_LEVEL, exact)))


def holding(ps: Sequence[float], level: float = LEVEL) -> list[bool]:
    """Which of a family of claims hold, by Benjamini and Hochberg."""
    from scipy.stats import false_discovery_control

    return [bool(p <= level) for p in false_discovery_control(ps)] if ps else []


def interval_level(held: int, family: int) -> float:
    """How often the interval of a claim may miss so that of those that hold a share of `LEVEL` does
    (Benjamini and Yekutieli 2005, doi 10.1198/016214504000001907)."""
    return LEVEL * max(held, 1) / max(family, 1)


def tagged(ps: Sequence[float]) -> list[bool]:
    """Which claims have the tag that stays, in the order of promotion, by LORD++."""
    from scipy.special import zeta

    whole = float(zeta(LORD_DECAY))

    def share(distance: int) -> float:
        return math.pow(distance, -LORD_DECAY) / whole

    found: list[int] = []
    for place, p in enumerate(ps):
        level = LORD_START * share(place + 1)
        for number, earlier in enumerate(found):
            level += (LEVEL - LORD_START if number == 0 else LEVEL) * share(place - earlier)
        if p <= level:
            found.append(place)
    return [place in found for place in range(len(ps))]
