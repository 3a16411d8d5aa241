"""The procedure for claims in labs with known truth: python benchmarks/claims.py [LABS [WORLD ...]]

Simulated labs: candidates whose runs vary by sds that are lognormal about 0.016 nats, a bar whose runs vary
by 0.011, all that are no better exactly at the bar, the others 0.5, 1, 1.5, 2 or 3 of their own sds better.
The procedure of `asi_lab/scoring/claims.py`, for all labs at once, beside what is usual, on the same runs.
For every rule its false-discovery rate with the upper 95 % Monte Carlo limit, its power by the true gain, and
the runs of a claim. One lab of a thousand is also gone through by the lab's own functions, which must agree.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import digamma, ndtr, polygamma, stdtr, stdtrit, zeta

sys.path.insert(0, str(Path(__file__).parents[1]))

from asi_lab.scoring import claims
from asi_lab.scoring.statistics import EXACT, LEAST_FOR_FREEDOM
from asi_lab.settings import BaselineSettings

LABS = 4000
GAINS = (0.5, 1.0, 1.5, 2.0, 3.0)
"""True gains, in sds of the candidate's own runs; as many of each."""
SD, OF_BAR = 0.016, 0.011
FREEDOM = BaselineSettings().noise_freedom

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


class World(NamedTuple):
    """What labs are like: the share of candidates that are better, how many claims there are, runs of the bar
    and their sd, and how noise and sds are distributed."""

    share: float
    family: int = 200
    bar: int = 24
    of_bar: float = OF_BAR
    student: bool = False
    two_points: bool = False


class Labs(NamedTuple):
    """True gains [L, N] in sds, sds [L, N], gains of single runs over the bar's true loss [L, N, CAP], and
    the bar's own runs as such [L, M]."""

    true: Floats
    sd: Floats
    runs: Floats
    bar: Floats


class Rule(NamedTuple):
    """Which claims are made [L, N], and of how many runs each [L, N]."""

    claimed: Flags
    spent: NDArray[np.int64]


def labs(rng: np.random.Generator, world: World, count: int) -> Labs:
    better = round(world.share * world.family)
    gains = np.resize(GAINS, better)
    one = np.concatenate([gains, np.zeros(world.family - better)])
    true = rng.permuted(np.tile(one, (count, 1)), axis=1)
    sd = SD * np.exp(rng.normal(0.0, 0.4, true.shape))
    if world.two_points:
        sd = np.where(rng.random(true.shape) < 0.7, 0.011, 0.047)

    def noise(*shape: int) -> Floats:
        return rng.standard_t(5, shape) / math.sqrt(5 / 3) if world.student else rng.normal(size=shape)

    runs = sd[..., None] * (true[..., None] + noise(*true.shape, claims.CAP))
    return Labs(true, sd, runs, world.of_bar * noise(count, world.bar))


class Priors:
    """The prior of variances of every lab, as far as its claims have ended."""

    def __init__(self, bar: Floats) -> None:
        self._logs: list[Floats] = []
        self._chances: list[Floats] = []
        self._sums = np.zeros(len(bar))
        self._owns = np.zeros(len(bar))
        self.add(bar.var(1, ddof=1), np.full(len(bar), bar.shape[1] - 1.0))

    def add(self, variances: Floats, owns: Floats) -> None:
        """A group of each lab."""
        self._logs.append(np.log(variances) + np.log(owns / 2) - digamma(owns / 2))
        self._chances.append(polygamma(1, owns / 2))
        self._sums, self._owns = self._sums + owns * variances, self._owns + owns

    def known(self) -> tuple[Floats, Floats]:
        """Freedom and variance of each lab."""
        logs, chance, count = np.array(self._logs), np.mean(self._chances, axis=0), len(self._logs)
        middle = logs.mean(0)
        if count >= LEAST_FOR_FREEDOM:
            between = logs.var(0, ddof=1) - chance
        else:
            between = np.full_like(middle, polygamma(1, FREEDOM / 2))
        usable = np.where(between > 2 / EXACT, between, 1.0)
        freedom = 2 * trigamma_inverse(usable + (usable + chance) / count)
        fitted = np.exp(middle - np.log(freedom / 2) + digamma(freedom / 2))
        alike = between <= 2 / EXACT
        return (
            np.minimum(np.where(alike, EXACT, freedom), claims.MOST_FREEDOM),
            np.where(alike, self._sums / self._owns, fitted),
        )


def trigamma_inverse(wanted: Floats) -> Floats:
    x = 0.5 + 1.0 / wanted
    for _ in range(30):
        value = polygamma(1, x)
        x = x + value * (1.0 - value / wanted) / polygamma(2, x)
    return x


def procedure(found: Labs) -> tuple[Rule, Rule, Floats]:
    """What holds, what is tagged, and the p of every claim: one claim after the other, as in a lab."""
    count, family, _ = found.runs.shape
    mean, of_bar = found.bar.mean(1), found.bar.var(1, ddof=1) / found.bar.shape[1]
    most, priors = found.bar.shape[1] - 1.0, Priors(found.bar)
    ps, spent = np.ones((count, family)), np.full((count, family), claims.CAP)
    for place in range(family):
        freedom, variance = priors.known()
        runs, alive = found.runs[:, place], np.ones(count, bool)
        for have in claims.LOOKS:
            own = have - 1
            square = (freedom * variance + own * runs[:, :have].var(1, ddof=1)) / (freedom + own)
            sd, left = np.sqrt(square), claims.CAP - have
            expected = (have * (runs[:, :have].mean(1) - mean) + left * claims.DESIGN * sd) / claims.CAP
            exact = np.minimum(freedom + claims.CAP - 1, most)
            needed = stdtrit(exact, 1 - claims.PLANNED_LEVEL) * np.sqrt(square / claims.CAP + of_bar)
            power = ndtr((expected - needed) / (sd * math.sqrt(left) / claims.CAP))
            dropped = alive & (power < claims.LEAST_POWER)
            spent[dropped, place] = have
            alive &= ~dropped
        have = spent[:, place]
        inside = np.arange(claims.CAP) < have[:, None]
        own_means = np.where(inside, runs, 0.0).sum(1) / have
        squares = np.where(inside, (runs - own_means[:, None]) ** 2, 0.0).sum(1) / (have - 1)
        priors.add(squares, have - 1.0)
        freedom, variance = priors.known()
        square = (freedom * variance + (have - 1) * squares) / (freedom + have - 1)
        t = (own_means - mean) / np.sqrt(square / have + of_bar)
        ps[:, place] = np.where(alive, stdtr(np.minimum(freedom + have - 1, most), -t), 1.0)
    return Rule(holding(ps), spent), Rule(tagged(ps), spent), ps


def holding(ps: Floats) -> Flags:
    """By Benjamini and Hochberg, in every lab."""
    family = ps.shape[1]
    levels = claims.LEVEL * np.arange(1, family + 1) / family
    held = ((np.sort(ps, 1) <= levels) * np.arange(1, family + 1)).max(1)
    return ps <= np.where(held > 0, claims.LEVEL * held / family, -1.0)[:, None]


def ever_holding(ps: Floats, readings: int = 10) -> Flags:
    """What held at any of so many readings, evenly spaced: for who stops when something does."""
    family, found = ps.shape[1], np.zeros(ps.shape, bool)
    for reading in range(1, readings + 1):
        until = family * reading // readings
        found[:, :until] |= holding(ps[:, :until])
    return found


def tagged(ps: Floats) -> Flags:
    """By LORD++, in every lab."""
    count, family = ps.shape
    shares = np.arange(1.0, family + 1) ** -claims.LORD_DECAY / zeta(claims.LORD_DECAY)
    found, weights = np.zeros((count, family), bool), np.zeros((count, family))
    for place in range(family):
        level = claims.LORD_START * shares[place] + weights[:, :place] @ shares[:place][::-1]
        found[:, place] = ps[:, place] <= level
        first = ~found[:, :place].any(1)
        weights[:, place] = found[:, place] * np.where(first, claims.LEVEL - claims.LORD_START, claims.LEVEL)
    return found


def one_seed(found: Labs) -> Rule:
    """One run that is better than the bar's mean."""
    return Rule(found.runs[..., 0] > found.bar.mean(1)[:, None], np.ones(found.true.shape, int))


def both_scores(rng: np.random.Generator) -> Callable[[Labs], Rule]:
    """The paper's promotion: one run better than one of the bar's by loss and by a benchmark, whose noise is
    its own and as large."""

    def rule(found: Labs) -> Rule:
        second = found.sd * (found.true + rng.normal(size=found.true.shape))
        bar = rng.permuted(found.bar, axis=1)
        better = (found.runs[..., 0] > bar[:, :1]) & (second > bar[:, 1:2])
        return Rule(better, np.ones(found.true.shape, int))

    return rule


def t_after(runs: int) -> Callable[[Labs], Rule]:
    """Welch's t-test at 5 % after so many runs of the candidate and of the bar."""

    def rule(found: Labs) -> Rule:
        return Rule(welch(found, runs) < 0.05, np.full(found.true.shape, runs))

    return rule


def peeking(found: Labs) -> Rule:
    """The same test after every run from the second on, until it is significant."""
    claimed, spent = np.zeros(found.true.shape, bool), np.full(found.true.shape, claims.CAP)
    for runs in range(2, claims.CAP + 1):
        new = ~claimed & (welch(found, runs) < 0.05)
        spent[new] = runs
        claimed |= new
    return Rule(claimed, spent)


def welch(found: Labs, runs: int) -> Floats:
    mine, bar = found.runs[..., :runs], found.bar[:, None, :runs]
    a, b = mine.var(2, ddof=1) / runs, bar.var(2, ddof=1) / runs
    freedom = (a + b) ** 2 / ((a**2 + b**2) / (runs - 1))
    p: Floats = stdtr(freedom, -(mine.mean(2) - bar.mean(2)) / np.sqrt(a + b))
    return p


def agrees(found: Labs, ps: Floats, lab: int) -> None:
    """The lab's own functions give the same."""
    bar = [-value for value in found.bar[lab]]
    groups, own = [bar], []
    for runs in found.runs[lab]:
        losses, known = [-value for value in runs], claims.prior(groups, FREEDOM)
        assert known is not None
        have = next(
            (have for have in claims.LOOKS if claims.is_futile(losses[:have], bar, known)), claims.CAP
        )
        groups.append(losses[:have])
        known = claims.prior(groups, FREEDOM)
        assert known is not None
        own.append(1.0 if have < claims.CAP else claims.gain(losses, bar, known).p)
    np.testing.assert_allclose(own, ps[lab], rtol=1e-6)
    assert claims.holding(own) == holding(ps)[lab].tolist()
    assert claims.tagged(own) == tagged(ps)[lab].tolist()


WORLDS = {
    "0 % true": World(0.0),
    "10 % true": World(0.1),
    "30 % true": World(0.3),
    "10 % true, 48 runs of the bar": World(0.1, bar=48),
    "0 % true, families of 60": World(0.0, family=60),
    "10 % true, families of 60": World(0.1, family=60),
    "0 % true, families of 20": World(0.0, family=20),
    "25 % true, families of 20": World(0.25, family=20),
    "0 % true, two-point sds": World(0.0, two_points=True),
    "10 % true, two-point sds": World(0.1, two_points=True),
    "0 % true, t5 noise": World(0.0, student=True),
    "10 % true, t5 noise": World(0.1, student=True),
    "0 % true, noisy bar, 48 runs": World(0.0, of_bar=0.03, bar=48),
    "10 % true, noisy bar, 48 runs": World(0.1, of_bar=0.03, bar=48),
}
READ_OFTEN = ("0 % true, families of 60", "10 % true, families of 60")
"""Worlds in which the table is also read while claims come in."""
USUAL = ("0 % true", "10 % true", "30 % true")
"""Worlds in which the usual rules are shown beside the procedure."""


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else LABS
    heads = " | ".join(f"{gain:g} sd" for gain in GAINS)
    print(f"| world | rule | false-discovery rate (upper limit) | {heads} | runs of a claim |")
    print(f"|---|---|---:|{'---:|' * (len(GAINS) + 1)}", flush=True)
    chosen = sys.argv[2:] or WORLDS
    for name, world in ((name, WORLDS[name]) for name in chosen):
        for rule, cells in measured(name, world, count).items():
            print(f"| {name} | {rule} | {' | '.join(cells)} |", flush=True)


def measured(name: str, world: World, count: int, at_once: int = 1000) -> dict[str, list[str]]:
    rng = np.random.default_rng(int(1000 * world.share) + world.family + world.bar)
    shares: dict[str, list[Any]] = {}
    for begin in range(0, count, at_once):
        found = labs(rng, world, min(at_once, count - begin))
        held, tags, ps = procedure(found)
        agrees(found, ps, 0)
        rules = {"holds": held, "tagged": tags}
        if name in READ_OFTEN:
            rules["holds at one of ten readings"] = Rule(ever_holding(ps), held.spent)
        if name in USUAL:
            rules["one seed, higher is better"] = one_seed(found)
            rules["better by both scores, one run each (paper)"] = both_scores(rng)(found)
            rules["t at 5 % after 3"] = t_after(3)(found)
            rules["peeking, t at 5 %"] = peeking(found)
        for rule, result in rules.items():
            claimed = result.claimed.sum(1)
            false = (result.claimed & (found.true <= 0)).sum(1) / np.maximum(claimed, 1)
            power = [result.claimed[found.true == gain] for gain in GAINS]
            shares.setdefault(rule, []).append((false, power, result.spent.mean(1)))
    return {rule: _cells(parts) for rule, parts in shares.items()}


def _cells(parts: list[Any]) -> list[str]:
    false = np.concatenate([part[0] for part in parts])
    limit = false.mean() + 1.96 * false.std(ddof=1) / math.sqrt(len(false))
    power = [np.concatenate([part[1][gain] for part in parts]) for gain in range(len(GAINS))]
    spent = np.concatenate([part[2] for part in parts]).mean()
    found = [f"{one.mean():.2f}" if one.size else "" for one in power]
    return [f"{false.mean():.4f} ({limit:.4f})", *found, f"{spent:.1f}"]


if __name__ == "__main__":
    main()
