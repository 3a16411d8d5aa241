"""Claims: fresh runs against the bar's, looks for futility, and the error rates of families."""

from __future__ import annotations

import math
from statistics import fmean, variance

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from online_fdr.core.utils.sequence import DefaultSaffronGammaSequence
from online_fdr.p_values import LordPlusPlus
from scipy import stats

from asi_lab.scoring import claims
from asi_lab.scoring.statistics import Prior

BAR = np.random.default_rng(1).normal(4.0, 0.01, 24).tolist()
KNOWN = Prior(0.016**2, 6.0, 200)


def runs(rng: np.random.Generator, gain: float, count: int = claims.CAP, sd: float = 0.016) -> list[float]:
    return (fmean(BAR) - gain * sd + rng.normal(0.0, sd, count)).tolist()


def test_a_gain_is_a_moderated_t():
    losses = runs(np.random.default_rng(2), 2.0)
    found = claims.gain(losses, BAR, KNOWN)
    square = (6.0 * 0.016**2 + 11 * variance(losses)) / 17
    error = math.sqrt(square / 12 + variance(BAR) / 24)
    assert found.gain == pytest.approx(fmean(BAR) - fmean(losses))
    assert found.error == pytest.approx(error)
    assert found.freedom == 17.0
    assert found.p == pytest.approx(stats.t.sf(found.gain / error, 17))
    low, high = found.interval(0.05)
    half = stats.t.ppf(0.975, 17) * error
    assert (low, high) == (pytest.approx(found.gain - half), pytest.approx(found.gain + half))


def test_nothing_is_known_better_than_the_bar_and_the_prior_counts_twenty_at_most():
    losses = runs(np.random.default_rng(3), 0.0)
    assert claims.gain(losses, BAR[:8], KNOWN).freedom == 7
    alike = [np.random.default_rng(n).normal(4.0, 0.016, 12).tolist() for n in range(400)]
    assert claims.prior(alike, 3.5).freedom == claims.MOST_FREEDOM
    assert claims.prior([[4.0], [4.1]], 3.5) is None


def test_variances_of_claims_do_not_follow_the_mean():
    rng = np.random.default_rng(4)
    rising = [rng.normal(mean, 0.01 * 10 ** (mean - 4.0), 12).tolist() for mean in np.linspace(4.0, 5.0, 12)]
    assert claims.prior(rising, 3.5).slope == 0.0


def test_a_look_drops_what_has_no_chance_and_nothing_else():
    rng = np.random.default_rng(5)
    worse, better = runs(rng, -4.0), runs(rng, 3.0)
    assert claims.is_futile(worse[:2], BAR, KNOWN)
    assert not any(claims.is_futile(better[:have], BAR, KNOWN) for have in claims.LOOKS)
    others = set(range(1, claims.CAP + 1)) - set(claims.LOOKS)
    assert not any(claims.is_futile(worse[:have], BAR, KNOWN) for have in others)


def test_conditional_power_is_that_of_runs_that_are_yet_to_come():
    """Where a look says ten percent, a gain of 1.25 sds is found that often at most: that later runs differ
    from the first makes the variance look larger, which a look leaves out."""
    rng, sd = np.random.default_rng(6), 0.016
    known = Prior(sd**2, claims.MOST_FREEDOM, 10_000)
    bar = (4.0 + 1e-4 * rng.normal(size=48)).tolist()
    seen = (4.0 + sd * np.linspace(-1.0, 1.0, 6)).tolist()
    shift = next(
        s for s in np.linspace(0.02, -0.02, 400) if not claims.is_futile([x + s for x in seen], bar, known)
    )
    have = [x + shift for x in seen]
    level = [
        claims.gain([*have, *(4.0 - 1.25 * sd + sd * rng.normal(size=6)).tolist()], bar, known).p
        for _ in range(2000)
    ]
    assert 0.02 < np.mean(np.array(level) <= claims.PLANNED_LEVEL) < 0.12


@pytest.mark.parametrize(
    ("gain", "bar", "found"),
    [(1.0, 24, 0.52), (1.5, 24, 0.89), (2.0, 24, 0.98), (1.0, 48, 0.58), (1.5, 48, 0.93)],
)
def test_power_is_about_that_of_the_simulation(gain, bar, found):
    assert claims.power(gain, (0.011 / 0.016) ** 2, bar, 4.0) == pytest.approx(found, abs=0.07)


PS = st.lists(st.one_of(st.floats(0, 1), st.floats(0, 1e-3), st.just(1.0)), max_size=60)


@given(PS)
def test_what_holds_is_what_benjamini_and_hochberg_say(ps):
    ordered, most = sorted(ps), 0.0
    for place, p in enumerate(ordered, start=1):
        if p <= claims.LEVEL * place / len(ps) * (1 - 1e-12):
            most = p
    held = claims.holding(ps)
    assert len(held) == len(ps)
    for p, holds in zip(ps, held, strict=True):
        if p <= most and most:
            assert holds
        elif p > claims.LEVEL * len(ps):
            assert not holds
    assert sum(held) >= sum(p <= most for p in ps if most)


@given(PS)
def test_tags_are_those_of_lord_and_never_taken_back(ps):
    oracle = LordPlusPlus(claims.LEVEL, claims.LORD_START)
    oracle.seq = DefaultSaffronGammaSequence(claims.LORD_DECAY, 1 / 2.2857656571)
    found = claims.tagged(ps)
    assert found == [oracle.test_one(p) for p in ps]
    for count in range(len(ps)):
        assert claims.tagged(ps[:count]) == found[:count]


def test_intervals_of_those_that_hold_are_wider_where_few_of_many_do():
    assert claims.interval_level(5, 50) == pytest.approx(0.005)
    assert claims.interval_level(0, 50) == pytest.approx(0.001)
    assert claims.interval_level(0, 0) == claims.LEVEL


def test_among_many_that_are_no_better_hardly_any_lab_claims_one():
    """200 labs of ten claims, all exactly at the bar; the whole procedure."""
    rng, claimed = np.random.default_rng(8), 0
    for _ in range(200):
        bar = rng.normal(0.0, 0.011, 24).tolist()
        groups, ps = [bar], []
        for sd in 0.016 * np.exp(rng.normal(0.0, 0.4, 10)):
            losses, known = rng.normal(0.0, sd, claims.CAP).tolist(), claims.prior(groups, 3.5)
            have = next((n for n in claims.LOOKS if claims.is_futile(losses[:n], bar, known)), claims.CAP)
            groups.append(losses[:have])
            known = claims.prior(groups, 3.5)
            ps.append(1.0 if have < claims.CAP else claims.gain(losses, bar, known).p)
        claimed += any(claims.holding(ps))
    assert claimed / 200 <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 200)
