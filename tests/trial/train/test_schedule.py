"""Learning-rate schedules."""

import itertools

import msgspec
import pytest

from asi_lab.lab.config import from_preset
from asi_lab.trial.train.schedule import learning_rate_factor


def train(**changes):
    return msgspec.structs.replace(from_preset("micro").train, steps=100, warmup_steps=10, **changes)


@pytest.mark.parametrize("schedule", ["wsd", "cosine"])
def test_warm_up_is_linear_to_the_peak_and_the_end_is_the_minimum(schedule):
    settings = train(schedule=schedule, minimum_lr_fraction=0.1)
    factors = [learning_rate_factor(step, settings) for step in range(100)]
    assert factors[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert factors[-1] == pytest.approx(0.1)
    assert max(factors) == pytest.approx(1.0)
    assert all(a >= b - 1e-12 for a, b in itertools.pairwise(factors[10:]))


def test_wsd_is_stable_until_the_decay():
    factors = [learning_rate_factor(step, train(decay_fraction=0.2)) for step in range(100)]
    assert set(factors[9:80]) == {1.0}
    assert factors[90] == pytest.approx(0.1 + 0.9 * 9 / 20)


def test_cosine_passes_the_middle_at_half():
    settings = train(schedule="cosine", minimum_lr_fraction=0.0)
    middle = (10 + 99) / 2
    around = [learning_rate_factor(step, settings) for step in (int(middle), int(middle) + 1)]
    assert sum(around) / 2 == pytest.approx(0.5, abs=1e-3)
