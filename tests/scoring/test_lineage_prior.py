"""Posteriors on trees against dense algebra, what is fitted, and breaks."""

from __future__ import annotations

import random

import numpy as np
import pytest

from asi_lab.records import PoolEntry
from asi_lab.scoring import lineage_prior
from asi_lab.scoring.lineage_prior import Mutation


def grown(rng: random.Random, count: int, mutation: Mutation, noise: float) -> list[PoolEntry]:
    """A lab of which the truth is known: parents are drawn from the five that measured best."""
    truth, entries = [0.5], [PoolEntry(0, 0.5, noise, runs=3)]
    for number in range(1, count):
        best = sorted(entries, key=lambda entry: -entry.fitness)[:5]
        parent = rng.choice(best).id
        truth.append(truth[parent] + rng.gauss(mutation.drift, mutation.variance**0.5))
        entries.append(PoolEntry(number, rng.gauss(truth[number], noise), noise, parent))
    return entries


def exact(entries: list[PoolEntry], mutation: Mutation) -> tuple[np.ndarray, np.ndarray]:
    """Means and sds by inverting the precision matrix of all true fitnesses."""
    precision, weighed = np.zeros((len(entries), len(entries))), np.zeros(len(entries))
    for entry in entries:
        i, measured = entry.id, entry.runs / entry.noise**2
        precision[i, i] += measured
        weighed[i] += measured * entry.fitness
        if (p := entry.parent) is not None:
            step = 1 / mutation.variance
            precision[np.ix_((i, p), (i, p))] += step * np.array([[1, -1], [-1, 1]])
            weighed[[i, p]] += step * mutation.drift * np.array([1, -1])
    covariance = np.linalg.inv(precision)
    return covariance @ weighed, np.sqrt(np.diag(covariance))


def test_a_parent_and_its_child_by_hand():
    """Parent 0 +- 1, child 4 +- 1, a step of -1 with variance 2. The parent alone expects the child at -1
    with variance 3: the child is at (-1 * 1 + 4 * 3) / 4 = 2.75 with variance 3/4. The child alone puts the
    parent at 5 with variance 3: the parent is at (0 * 3 + 5 * 1) / 4 = 1.25 with variance 3/4."""
    entries = [PoolEntry(0, 0.0, 1.0), PoolEntry(1, 4.0, 1.0, parent=0)]
    found = lineage_prior.beliefs(entries, Mutation(-1.0, 2.0))
    assert (found[0].mean, found[1].mean) == pytest.approx((1.25, 2.75))
    assert (found[0].sd, found[1].sd) == pytest.approx((0.75**0.5, 0.75**0.5))


def test_several_runs_count_as_their_mean():
    """Two runs of the parent: 0 +- sqrt(1/2), so it is at (0 * 3 + 5 * 0.5) / 3.5."""
    entries = [PoolEntry(0, 0.0, 1.0, runs=2), PoolEntry(1, 4.0, 1.0, parent=0)]
    assert lineage_prior.beliefs(entries, Mutation(-1.0, 2.0))[0].mean == pytest.approx(2.5 / 3.5)


@pytest.mark.parametrize("seed", range(5))
def test_beliefs_are_the_exact_posterior(seed):
    rng = random.Random(seed)
    entries = [PoolEntry(0, 0.5, 0.05, runs=3)]
    for number in range(1, 30):
        noise = rng.choice((0.02, 0.05))
        parent = None if number == 7 else rng.randrange(number)
        entries.append(PoolEntry(number, rng.gauss(0.5, 0.05), noise, parent, rng.choice((1, 1, 4))))
    mutation = Mutation(-0.01, 0.002)
    means, sds = exact(entries, mutation)
    found = lineage_prior.beliefs(rng.sample(entries, len(entries)), mutation)
    assert [found[i].mean for i in range(30)] == pytest.approx(means, abs=1e-12)
    assert [found[i].sd for i in range(30)] == pytest.approx(sds, abs=1e-12)


def test_drift_and_variance_are_found_though_parents_are_the_lucky_ones():
    truth, rng = Mutation(-0.01, 0.02**2), random.Random(0)
    labs = [lineage_prior.fitted(grown(rng, 200, truth, 0.02)) for _ in range(20)]
    assert np.mean([found.drift for found in labs]) == pytest.approx(truth.drift, abs=0.002)
    assert np.mean([found.variance for found in labs]) ** 0.5 == pytest.approx(0.02, rel=0.1)


def test_the_naive_drift_would_be_biased():
    """What the test above guards against: a lucky parent's children fall on average, also without drift."""
    rng, steps = random.Random(1), []
    for _ in range(20):
        entries = grown(rng, 200, Mutation(-0.01, 0.02**2), 0.02)
        steps += [e.fitness - entries[e.parent].fitness for e in entries if e.parent is not None]
    assert np.mean(steps) < -0.018


def test_ranks_are_nearer_to_the_truth_than_those_of_one_run():
    """The five that lead by worth are truly better than the five that lead by one run."""
    rng, gains = random.Random(2), []
    for _ in range(40):
        truth, entries = [0.5], [PoolEntry(0, 0.5, 0.02, runs=3)]
        for number in range(1, 120):
            parent = rng.randrange(number)
            truth.append(truth[parent] + rng.gauss(-0.005, 0.02))
            entries.append(PoolEntry(number, rng.gauss(truth[number], 0.02), 0.02, parent))
        worth = lineage_prior.worth(entries)
        by_worth = sorted(entries, key=lambda entry: -worth[entry.id])[:5]
        by_run = sorted(entries, key=lambda entry: -entry.fitness)[:5]
        gains.append(np.mean([truth[e.id] for e in by_worth]) - np.mean([truth[e.id] for e in by_run]))
    assert np.mean(gains) > 2 * np.std(gains) / len(gains) ** 0.5


def test_with_few_pairs_one_run_is_nearly_believed():
    entries = [PoolEntry(0, 0.5, 0.02, runs=3), PoolEntry(1, 0.6, 0.02, 0), PoolEntry(2, 0.58, 0.02, 0)]
    worth = lineage_prior.worth(entries)
    assert worth[1] > worth[2] > worth[0]
    assert worth[1] == pytest.approx(0.6, abs=0.01)


def test_a_collapsed_child_says_nothing_of_its_parent():
    rng = random.Random(3)
    entries = [PoolEntry(0, 0.5, 0.01, runs=3)]
    entries += [PoolEntry(i, rng.gauss(0.5, 0.015), 0.01, rng.randrange(i)) for i in range(1, 20)]
    mutation = Mutation(0.0, 0.01**2)
    before = lineage_prior.beliefs(entries, mutation)
    after = lineage_prior.beliefs([*entries, PoolEntry(20, 0.1, 0.01, 5)], mutation)
    assert after.pop(20).mean == 0.1
    assert after == before
    mild = lineage_prior.beliefs([*entries, PoolEntry(20, 0.47, 0.01, 5)], mutation)
    assert mild[5].mean < before[5].mean - 0.001


def test_what_is_known_exactly_stays_as_measured():
    """A lab without noise, as one whose runs do not differ, ranks by what was measured."""
    entries = [PoolEntry(0, 0.5), PoolEntry(1, 0.7, parent=0), PoolEntry(2, 0.6, parent=1), PoolEntry(3, 0.6)]
    assert lineage_prior.worth(entries) == {0: 0.5, 1: 0.7, 2: 0.6, 3: 0.6}


def test_a_parent_that_is_not_there_makes_a_root():
    entries = [PoolEntry(4, 0.5, 0.1, parent=2), PoolEntry(5, 0.4, 0.1, parent=9)]
    assert lineage_prior.worth(entries) == {4: 0.5, 5: 0.4}
    assert lineage_prior.worth([]) == {}


def test_the_latest_mutations_tell_what_one_does():
    """Early steps that rose say nothing of late ones that fall."""
    rng, fitness = random.Random(4), 0.0
    entries = [PoolEntry(0, 0.0, 0.01, runs=3)]
    for number in range(1, 2 * lineage_prior.LATEST + 1):
        fitness += rng.gauss(0.05 if number <= lineage_prior.LATEST else -0.02, 0.01)
        entries.append(PoolEntry(number, rng.gauss(fitness, 0.01), 0.01, number - 1))
    assert lineage_prior.fitted(entries).drift == pytest.approx(-0.02, abs=0.002)
    assert lineage_prior.fitted(entries[: lineage_prior.LATEST]).drift == pytest.approx(0.05, abs=0.002)
