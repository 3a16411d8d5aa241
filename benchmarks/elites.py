"""Ranking the pool by one run, or by what the lineage makes of it, in searches with known truth.

    python benchmarks/elites.py [REPETITIONS [WORDS OF A TRUTH]]

A candidate's true value is its parent's plus a mutation; one run measures it with noise of sd 1, the unit of
all figures. Parents are drawn by the lab's own pool. The searches of a repetition differ in how the pool
ranks, and in nothing else: mutations, noise and draws of rank have the same random numbers. Each figure is
the difference from ranking by one run, with its standard error.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from moderation import MEASURED

sys.path.insert(0, str(Path(__file__).parents[1]))

from asi_lab.lab.config import from_preset
from asi_lab.records import PoolEntry
from asi_lab.researcher import pool
from asi_lab.scoring import lineage_prior
from asi_lab.scoring.lineage_prior import Mutation
from asi_lab.settings import Search

REPETITIONS = 60
SEED_RUNS = 3
DRAWS = 3
"""A parent that is drawn so often is run once more, where elites are run again as a routine."""
MICRO, PAPER = from_preset("micro").search, from_preset("340m").search
NOISES = np.array(MEASURED) / np.sqrt(np.mean(np.square(MEASURED)))
"""Of three architectures at micro, in units of the pooled one that the lab goes by."""

Entries = Sequence[PoolEntry]
Rank = Callable[[Entries, Mutation], Entries]
"""From measured candidates, and what mutations truly are, to those that the pool is to rank."""


class Truth(NamedTuple):
    """What mutations do: `drift` and `sd`; a `share` of them collapses by five sds on average; a `leap` that
    the first step away from the seed makes beside that; sds of one run, of which each candidate has one. With
    a `slope` the pool sees the sigmoid of that many times a value."""

    drift: float
    sd: float
    share: float = 0.0
    leap: float = 0.0
    student: bool = False
    noises: Sequence[float] = (1.0,)
    slope: float = 0.0

    def seen(self, value: float) -> tuple[float, float]:
        """What the pool sees of a measured value, and the sd of one run there."""
        if not self.slope:
            return value, 1.0
        part = 1 / (1 + math.exp(-self.slope * value))
        return part, self.slope * part * (1 - part)


class Policy(NamedTuple):
    """How the pool ranks, with the sd of a run that it goes by (in units of the true one), whether it goes by
    the one in the middle of a sigmoid instead of that of each place, and whether elites are run again."""

    rank: Rank
    noise: float = 1.0
    again: bool = False
    of_middle: bool = False


def as_they_are(entries: Entries, _: Mutation) -> Entries:
    """The lab's own way."""
    return entries


def valued(entries: Entries, values: Sequence[float]) -> Entries:
    """Candidates that have these values and no relatives, which the pool ranks by that value."""
    return [PoolEntry(entry.id, float(value)) for entry, value in zip(entries, values, strict=True)]


def by_one_run(entries: Entries, _: Mutation) -> Entries:
    return valued(entries, [entry.fitness for entry in entries])


def by_a_common_prior(entries: Entries, _: Mutation) -> Entries:
    """Empirical Bayes: each value shrunk to the mean of all."""
    found = np.array([entry.fitness for entry in entries])
    noise = np.array([entry.noise**2 / entry.runs for entry in entries])
    spread = max(found.var() - noise.mean(), 1e-6)
    return valued(entries, found.mean() + spread / (spread + noise) * (found - found.mean()))


def from_parents_alone(entries: Entries, _: Mutation) -> Entries:
    """The lineage without what children say of their parents."""
    drift, variance = (mutation := lineage_prior.fitted(entries)).drift, mutation.variance
    known: dict[int, tuple[float, float]] = {}
    for entry in entries:
        mean, spread = entry.fitness, entry.noise**2 / entry.runs
        if entry.parent is not None:
            above, doubt = known[entry.parent]
            gain = (doubt + variance) / (doubt + variance + spread)
            mean, spread = above + drift + gain * (mean - above - drift), gain * spread
        known[entry.id] = mean, spread
    return valued(entries, [known[entry.id][0] for entry in entries])


def with_the_truth(entries: Entries, truth: Mutation) -> Entries:
    """The lineage with the true drift and variance instead of fitted ones."""
    found = lineage_prior.beliefs(entries, truth)
    return valued(entries, [found[entry.id].mean for entry in entries])


TRUTHS = {
    "mutations of 1 sd": Truth(-0.5, 1.0),
    "mutations of 2.5 sd": Truth(-1.25, 2.5),
    "no drift": Truth(0.0, 1.0),
    "a quarter collapses": Truth(-0.5, 1.0, share=0.25),
    "Student's t, 3 degrees": Truth(-0.5, 1.0, student=True),
    "first steps leap by 10": Truth(-0.5, 1.0, leap=10.0),
    "noise as measured at micro": Truth(-0.5, 1.0, noises=tuple(NOISES)),
    "seen through a sigmoid": Truth(-0.5, 1.0, leap=12.0, slope=0.17),
}
ONE_RUN = Policy(by_one_run)
LINEAGE = Policy(as_they_are)
OF_MIDDLE = "lineage, noise of the middle"
POLICIES = {
    "lineage": LINEAGE,
    "lineage, drift and variance known": Policy(with_the_truth),
    "lineage, from parents alone": Policy(from_parents_alone),
    "lineage, noise told is half": Policy(as_they_are, noise=0.5),
    "lineage, noise told is twice": Policy(as_they_are, noise=2.0),
    OF_MIDDLE: Policy(as_they_are, of_middle=True),
    "common prior": Policy(by_a_common_prior),
    "one run, elites again": Policy(by_one_run, again=True),
    "lineage, elites again": Policy(as_they_are, again=True),
}


class World:
    """The random numbers of one repetition."""

    def __init__(self, truth: Truth, trials: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        steps = rng.standard_t(3, trials + 1) / 3**0.5 if truth.student else rng.normal(size=trials + 1)
        collapsed = rng.random(trials + 1) < truth.share
        fallen = -rng.exponential(5 * truth.sd, trials + 1)
        self.steps = np.where(collapsed, fallen, truth.drift + truth.sd * steps)
        self.errors = rng.choice(truth.noises, (trials + 1, 1)) * rng.normal(size=(trials + 1, 2))
        self.seed_error = rng.normal() / SEED_RUNS**0.5


def searched(seed: int, trials: int, search: Search, truth: Truth, policy: Policy) -> tuple[float, float]:
    """The parents' mean true value after so many trials, and that of the candidate that then ranks first."""
    world, mutation = World(truth, trials, seed), Mutation(truth.drift, truth.sd**2)
    values, parents, drawn = [0.0], list[int](), dict[int, int]()
    entries = [entry_of(0, world.seed_error, None, truth, policy, runs=SEED_RUNS)]
    best: Entries = []
    spent, generation = 0, -1
    while spent < trials:
        number = len(entries)
        if pool.generation_of(number, search) != generation:
            generation = pool.generation_of(number, search)
            last = pool.boundary(generation, search)
            known = policy.rank([entry for entry in entries if entry.id <= last], mutation)
            ranked = pool.members(generation, known, search)
            best = valued(ranked, range(0, -len(ranked), -1))
        parent = pool.draw(number, best, search, seed).parent
        parents.append(parent)
        drawn[parent] = drawn.get(parent, 0) + 1
        leap = truth.leap if parent == 0 else 0.0
        values.append(values[parent] + float(world.steps[number]) + leap)
        measured = values[number] + float(world.errors[number, 0])
        entries.append(entry_of(number, measured, parent, truth, policy))
        spent += 1
        if policy.again and drawn[parent] == DRAWS and parent != 0 and spent < trials:
            mean = values[parent] + float(world.errors[parent].mean())
            entries[parent] = entry_of(parent, mean, entries[parent].parent, truth, policy, runs=2)
            spent += 1
    all_of_them = Search(pool=1, parent_ranks=1, cold_start=len(entries), update_every=1)
    chosen = pool.members(1, policy.rank(entries, mutation), all_of_them)[0]
    return float(np.mean([values[parent] for parent in parents])), values[chosen.id]


def entry_of(
    number: int, measured: float, parent: int | None, truth: Truth, policy: Policy, runs: int = 1
) -> PoolEntry:
    """A measured candidate as the pool is told of it."""
    fitness, noise = truth.seen(measured)
    noise = truth.seen(0.0)[1] if policy.of_middle else noise
    return PoolEntry(number, fitness, policy.noise * noise, parent, runs)


def compared(
    trials: int, search: Search, truth: Truth, policy: Policy, repetitions: int
) -> tuple[float, float, float, float]:
    """What a policy gains over ranking by one run: the parents' mean and its standard error, the chosen."""
    found, plain = (
        np.array([searched(i, trials, search, truth, ranked) for i in range(repetitions)])
        for ranked in (policy, ONE_RUN)
    )
    gains = found - plain
    means, errors = gains.mean(axis=0), gains.std(axis=0, ddof=1) / repetitions**0.5
    return float(means[0]), float(errors[0]), float(means[1]), float(errors[1])


def main() -> None:
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else REPETITIONS
    asked = sys.argv[2] if len(sys.argv) > 2 else ""
    pools = {"micro, 60 trials": (60, MICRO), "micro, 200": (200, MICRO), "paper, 600": (600, PAPER)}
    rows = [(truth, policy) for truth in list(TRUTHS)[:2] for policy in POLICIES if policy != OF_MIDDLE]
    rows += [(truth, "lineage") for truth in list(TRUTHS)[2:]] + [(list(TRUTHS)[-1], OF_MIDDLE)]
    rows = [row for row in rows if asked in row[0]]
    with ProcessPoolExecutor() as executor:
        cells = {
            (*row, name): executor.submit(
                compared, trials, search, TRUTHS[row[0]], POLICIES[row[1]], repetitions
            )
            for row in rows
            for name, (trials, search) in pools.items()
        }
        heads = [f"{name}: {what}" for name in pools for what in ("parents", "chosen")]
        print(f"{repetitions} repetitions; gains over ranking by one run, in sds of one run\n")
        print(f"| truth | pool ranks by | {' | '.join(heads)} |\n|---|---|{'---:|' * len(heads)}")
        for row in rows:
            shown = []
            for name in pools:
                parents, error, chosen, its_error = cells[(*row, name)].result()
                shown += [f"{parents:+.2f} ± {error:.2f}", f"{chosen:+.2f} ± {its_error:.2f}"]
            print(f"| {' | '.join((*row, *shown))} |", flush=True)


if __name__ == "__main__":
    main()
