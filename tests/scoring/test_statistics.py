"""Variances moderated by those of others: the fit, its limits, and what it is good for."""

from __future__ import annotations

import math
from statistics import variance

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import polygamma

from asi_lab.scoring import statistics
from asi_lab.scoring.statistics import EXACT, Prior, Spread, prior_of

FREEDOM = 3.5


def groups_of(rng: np.random.Generator, true: np.ndarray, runs: int) -> list[list[float]]:
    return [rng.normal(0.0, math.sqrt(one), runs).tolist() for one in true]


@pytest.mark.parametrize("freedom", [2.0, 4.0, 12.0])
def test_the_fit_finds_the_prior_that_variances_were_drawn_from(freedom):
    rng, scale = np.random.default_rng(1), 0.02**2
    found = prior_of(groups_of(rng, scale * freedom / rng.chisquare(freedom, 4000), 5), FREEDOM)
    assert found.variance == pytest.approx(scale, rel=0.05)
    assert found.freedom == pytest.approx(freedom, rel=0.15)
    assert found.seen == 16_000


def test_where_all_vary_alike_variances_are_pooled():
    groups = groups_of(np.random.default_rng(2), np.full(4000, 0.25), 4)
    found = prior_of(groups, FREEDOM)
    assert found.freedom > 100
    assert found.moderated(groups[0]).sd == pytest.approx(0.5, rel=0.02)


def test_a_moderated_variance_lies_between_its_own_and_the_prior():
    prior, values = Prior(4.0, 6.0, 40), [0.0, 1.0, 2.0]
    spread = prior.moderated(values)
    assert spread.sd**2 == pytest.approx((6 * 4.0 + 2 * variance(values)) / 8)
    assert spread.freedom == 8.0
    assert prior.moderated([7.0]) == Spread(2.0, 6.0)  # one run: the prior's


def test_nothing_is_known_better_than_by_all_runs():
    assert Prior(4.0, 60.0, 10).moderated([0.0, 1.0]).freedom == 10
    assert Prior(4.0, EXACT, 10).moderated([0.0, 1.0]) == Spread(2.0, 10)


def test_few_architectures_are_taken_to_be_as_alike_as_the_study_says():
    groups = [4.0, 4.1, 4.2], [3.5, 3.7, 3.6, 3.9]
    loose, usual, tight = (prior_of(groups, freedom) for freedom in (1.0, FREEDOM, 1000.0))
    assert loose.freedom < usual.freedom < tight.freedom
    assert loose.seen == usual.seen == tight.seen == 5
    assert prior_of([*groups] * 4, 1.0).freedom > 20  # eight say themselves that they vary alike


def test_one_run_against_the_mean_of_many_is_the_prediction_of_a_run():
    many = np.random.default_rng(5).normal(4.0, 0.02, 10_000).tolist()
    prior = Prior(0.02**2, 6.0, 10_000)
    spread = prior.difference(prior.of_mean([3.9]), prior.of_mean(many))
    assert spread.sd == pytest.approx(0.02, rel=1e-3)
    assert spread.freedom == pytest.approx(6.0, rel=1e-3)
    assert spread.margin() == pytest.approx(1.943180 * 0.02, rel=1e-3)


def test_the_variance_follows_the_mean_only_where_that_is_no_chance():
    rng = np.random.default_rng(6)
    means = np.linspace(4.0, 5.0, 12)
    rising = [rng.normal(mean, 0.01 * 10 ** (mean - 4.0), 8).tolist() for mean in means]
    found = prior_of(rising, FREEDOM)
    assert found.slope == pytest.approx(2 * math.log(10), rel=0.35)
    assert math.sqrt(found.variance_at(4.0)) == pytest.approx(0.01, rel=0.5)
    assert found.variance_at(3.0) == found.variance_at(min(map(np.mean, rising)))
    level = [rng.normal(mean, 0.03, 8).tolist() for mean in means]
    assert prior_of(level, FREEDOM).slope == 0.0


def test_intervals_cover_the_truth_as_often_as_they_say():
    """Eight architectures of five runs each, over many draws; pooled, those that vary most are missed."""
    rng, hits = np.random.default_rng(3), []
    for _ in range(1500):
        true = 4.0 / rng.chisquare(4.0, 8)
        groups = groups_of(rng, true, 5)
        a, b = rng.choice(8, 2, replace=False)
        prior = prior_of(groups, FREEDOM)
        half = prior.difference(prior.of_mean(groups[a]), prior.of_mean(groups[b])).margin(0.025)
        hits.append(abs(np.mean(groups[a]) - np.mean(groups[b])) <= half)
    assert 0.91 < np.mean(hits) < 0.97


def test_without_two_runs_that_differ_nothing_is_known():
    assert prior_of([[1.0], [2.0]], FREEDOM) is None
    assert prior_of([[1.0, 1.0], [2.0]], FREEDOM) is None


@given(
    st.lists(st.lists(st.integers(-1000, 1000).map(float), min_size=1, max_size=6), min_size=1, max_size=8)
)
def test_whatever_runs_give_the_spread_is_finite(groups):
    prior = prior_of(groups, FREEDOM)
    if prior is not None:
        for values in groups:
            spread = prior.moderated(values)
            assert math.isfinite(spread.sd)
            assert 0 < spread.freedom <= prior.seen
        whole = prior.difference(prior.of_mean(groups[0]), prior.of_mean(groups[-1]))
        assert math.isfinite(whole.sd)
        assert 0 < whole.freedom <= prior.seen


@pytest.mark.parametrize("value", [1e-8, 1e-3, 0.5, 1.0, 7.0, 1e3, 1e8])
def test_the_trigamma_function_is_inverted(value):
    assert float(polygamma(1, statistics._trigamma_inverse(value))) == pytest.approx(value, rel=1e-6)
