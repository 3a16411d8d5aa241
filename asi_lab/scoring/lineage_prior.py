"""What a candidate is worth, given its one run and the runs of its relatives.

The best of many single runs was lucky once. But a candidate is a mutation of its parent, so what is known of
its relatives says what to expect of it:

    true fitness      t(child) = t(parent) + e,   e ~ N(drift, variance) of a mutation
    measured fitness  y = t + noise,              noise ~ N(0, sd of one run squared / runs)

On a tree the posterior is exact after two passes: one from the leaves to the roots gathers what the
descendants of a candidate say of it, one back adds the rest (a Kalman smoother on a tree; Pearl 1988). Roots
have a flat prior. Drift and variance are those of the lab's latest mutations, by EM: parents are chosen by
what was measured, and that is in the likelihood, so the choice does not bias them. All of it is additions,
products, quotients and square roots in order of id: the same on every machine.

Mutations have heavy tails: some children collapse, and a first step away from the seed may leap. Such a step
is a break: the child stands on its own runs, and says nothing of its parent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

import msgspec

from asi_lab.records import PoolEntry

LATEST = 300
"""Drift and variance are fitted to so many mutations, the latest ones."""
STEPS = 10
"""Steps of EM."""
PRIOR_PAIRS, PRIOR_SD = 4, 2.0
"""Before there are pairs of parent and child, a mutation is thought to have no drift and twice a run's sd, as
if so many pairs had shown it: with few pairs single runs are believed."""
FEWEST, BREAK = 8, 4.0
"""From so many pairs on, a step further from the median than so many robust sds is a break."""
ROBUST = 1.4826
"""The sd of a normal distribution in units of its median absolute deviation."""
LEAST = 1e-12
"""The least variance of a mutation."""


class Mutation(msgspec.Struct, frozen=True):
    """What a mutation does to the true fitness: it adds `drift` on average, with this `variance`."""

    drift: float
    variance: float


class Belief(msgspec.Struct, frozen=True):
    """What is known of a true fitness: a normal distribution with this mean and standard deviation."""

    mean: float
    sd: float


def worth(entries: Sequence[PoolEntry]) -> dict[int, float]:
    """The posterior mean of the true fitness of each of these candidates, by id. Those whose parent is not
    among them are roots."""
    forest = _Forest(entries)
    means, _, _ = forest.smoothed(fitted(entries))
    return dict(zip(forest.ids, means, strict=True))


def fitted(entries: Sequence[PoolEntry]) -> Mutation:
    """What a mutation does in this lab: the mode of its posterior given all runs, approached by EM."""
    latest = sorted(entries, key=lambda entry: entry.id)[-LATEST:]
    concerned = {number for entry in latest for number in (entry.id, entry.parent)}
    forest = _Forest([entry for entry in entries if entry.id in concerned])
    usual = PRIOR_SD**2 * forest.usual_variance
    found = Mutation(0.0, max(usual, LEAST))
    for _ in range(STEPS if forest.steps else 0):
        found = _improved(found, forest, usual)
    return found


def beliefs(entries: Sequence[PoolEntry], mutation: Mutation) -> dict[int, Belief]:
    """The posterior of the true fitness of each of these candidates, by id, given all their runs."""
    forest = _Forest(entries)
    means, variances, _ = forest.smoothed(mutation)
    return {i: Belief(m, math.sqrt(v)) for i, m, v in zip(forest.ids, means, variances, strict=True)}


def _improved(known: Mutation, forest: _Forest, usual: float) -> Mutation:
    """A step of EM, from what steps away from parents are like given all runs and what was known."""
    _, _, (mean, square) = forest.smoothed(known)
    count = forest.steps
    drift = count * mean / (count + PRIOR_PAIRS)
    about = count * (square - 2 * drift * mean + drift * drift) + PRIOR_PAIRS * (usual + drift * drift)
    return Mutation(drift, max(about / (count + PRIOR_PAIRS), LEAST))


class _Forest:
    """Candidates in order of id, so that parents come first: `fitness`, the `variance` it was measured with,
    and the position of the `parent`, -1 for a root. `steps` is the number of those that have a parent."""

    def __init__(self, entries: Sequence[PoolEntry]) -> None:
        ordered = sorted(entries, key=lambda entry: entry.id)
        self.ids = [entry.id for entry in ordered]
        self.fitness = [entry.fitness for entry in ordered]
        self.variance = [entry.noise * entry.noise / entry.runs for entry in ordered]
        at = {number: position for position, number in enumerate(self.ids)}
        self.parent = [-1 if entry.parent is None else at.get(entry.parent, -1) for entry in ordered]
        self._break()
        self.steps = sum(parent >= 0 for parent in self.parent)

    @property
    def usual_variance(self) -> float:
        """The median of the variances that fitnesses were measured with."""
        return median(self.variance) if self.variance else 0.0

    def _break(self) -> None:
        """Make those whose step away from their parent is far out of the usual roots."""
        steps = {i: self.fitness[i] - self.fitness[p] for i, p in enumerate(self.parent) if p >= 0}
        if len(steps) < FEWEST:
            return
        middle = median(steps.values())
        spread = ROBUST * median(abs(step - middle) for step in steps.values())
        for i, step in steps.items():
            noise = math.sqrt(self.variance[i] + self.variance[self.parent[i]])
            if abs(step - middle) > BREAK * max(spread, noise):
                self.parent[i] = -1

    def smoothed(self, mutation: Mutation) -> tuple[list[float], list[float], tuple[float, float]]:
        """Posterior means and variances of the true fitnesses; the mean and the mean square of the true steps
        away from a parent, 0 without any."""
        drift, step_variance = mutation.drift, mutation.variance
        means, variances = self._gathered(mutation)
        total = squares = 0.0
        for i, parent in enumerate(self.parent):
            if parent < 0:
                continue
            # Given the parent's true fitness t, a candidate's has the mean own + gain * (t + drift - own).
            gain = variances[i] / (variances[i] + step_variance)
            given_parent = gain * step_variance
            own, above = means[i], means[parent]
            means[i] = own + gain * (above + drift - own)
            variances[i] = given_parent + gain * gain * variances[parent]
            step = means[i] - above
            total += step
            squares += step * step + given_parent + (1 - gain) * (1 - gain) * variances[parent]
        count = max(1, self.steps)
        return means, variances, (total / count, squares / count)

    def _gathered(self, mutation: Mutation) -> tuple[list[float], list[float]]:
        """Means and variances of the true fitnesses, given the runs of each candidate and its descendants."""
        means, variances = list(self.fitness), list(self.variance)
        for i in range(len(means) - 1, -1, -1):
            if (parent := self.parent[i]) >= 0:
                told = variances[i] + mutation.variance  # of the parent, by this child
                gain = variances[parent] / (variances[parent] + told)
                means[parent] += gain * (means[i] - mutation.drift - means[parent])
                variances[parent] = gain * told
        return means, variances
