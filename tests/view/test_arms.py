"""What is told of arms: counts, losses against the bar, and the interval of a difference."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from scipy.stats import ttest_ind

from asi_lab.lab.summary import summarise
from asi_lab.records import Arm, CandidateState
from asi_lab.scoring.statistics import spread_of_difference
from asi_lab.view import arms

BAR = 4.2


@pytest.fixture
def summary(make_candidate):
    """Makes the summary of a candidate of an arm, with a loss; failed without one."""
    made = summarise(make_candidate(1))
    number = iter(range(1, 1000))

    def summary(arm, loss=None, state=None):
        state = state or (CandidateState.DONE if loss is not None else CandidateState.LEAKING)
        return msgspec.structs.replace(made, id=next(number), arm=arm, loss=loss, state=state)

    return summary


def test_one_arm_is_nothing_to_compare(summary):
    assert arms.compared([], BAR) == ()
    assert arms.compared([summary(Arm.EVOLUTION, 4.0), summary(None, 4.1)], BAR) == ()
    assert arms.table((), "mamba2") == ()


def test_figures_are_those_of_welchs_test(summary):
    rng = np.random.default_rng(0)
    losses = {Arm.EVOLUTION: rng.normal(4.2, 0.02, 30), Arm.SEQUENTIAL: rng.normal(4.3, 0.1, 6)}
    found = [summary(arm, float(loss)) for arm, group in losses.items() for loss in group]
    found += [summary(Arm.SEQUENTIAL), summary(Arm.SEQUENTIAL), summary(None, 1.0)]
    found.append(summary(Arm.BEST_OF_N, state=CandidateState.TRAINING))
    evolution, sequential = arms.compared(found, BAR)
    assert (evolution.ended, evolution.failed, evolution.gain) == (30, 0, None)
    assert (sequential.ended, sequential.failed) == (8, 2)
    assert sequential.best == pytest.approx(losses[Arm.SEQUENTIAL].min() - BAR)
    assert sequential.mean == pytest.approx(losses[Arm.SEQUENTIAL].mean() - BAR)
    expected = ttest_ind(losses[Arm.SEQUENTIAL], losses[Arm.EVOLUTION], equal_var=False)
    low, high = expected.confidence_interval(0.95)
    assert sequential.gain == pytest.approx(losses[Arm.SEQUENTIAL].mean() - losses[Arm.EVOLUTION].mean())
    assert sequential.interval == (pytest.approx(low), pytest.approx(high))


def test_too_few_to_tell_have_no_interval(summary):
    found = [summary(Arm.EVOLUTION, 4.0), summary(Arm.EVOLUTION, 4.1)]
    found += [summary(Arm.GRAMMAR, 4.2), summary(Arm.BEST_OF_N)]
    _, grammar, best_of_n = arms.compared(found, BAR)
    assert grammar.gain == pytest.approx(0.15)
    assert grammar.interval is None
    assert (best_of_n.ended, best_of_n.failed, best_of_n.mean, best_of_n.gain) == (1, 1, None, None)
    assert spread_of_difference([1.0, 1.0], [2.0, 2.0]) is None


def test_each_arm_has_words():
    assert set(arms.ABOUT) == set(Arm)
