"""What is measured when, and the noise floor."""

import math

import numpy as np
import pytest

from asi_lab.errors import UsageError
from asi_lab.lab.config import parse
from asi_lab.records import BaselineRun, Evaluation, Evidence, TaskResult, Training
from asi_lab.scoring import baselines
from asi_lab.scoring.baselines import Baselines

LAB = parse("preset = '20m'\n[baselines]\nseeds = 3\nmax_seeds = 5\ngrow_every = 10\n")
SETTINGS = LAB.baselines


def run(architecture: str, index: int, loss: float, speed: float = 1000.0) -> BaselineRun:
    training = Training(1000, 500, 10, 100, loss, 1.0, speed, 10.0)
    task = TaskResult("recall", 0.3 + loss / 100, "choice_probability", True, 0.25, 10)
    return BaselineRun(architecture, index, Evidence((), training, Evaluation(loss, 10, (task,), 0, 1, 1)))


def lab(delta: list[float], gated: list[float]) -> Baselines:
    runs = [run("delta_net", i, loss) for i, loss in enumerate(delta)]
    runs += [run("gated_delta_net", i, loss) for i, loss in enumerate(gated)]
    return Baselines(LAB, runs)


def test_due_runs_grow_with_finished_candidates():
    first = baselines.due(SETTINGS, 0, [])
    assert first == [(name, i) for i in range(3) for name in ("delta_net", "gated_delta_net")]
    runs = [run(name, i, 4.0) for name, i in first]
    assert baselines.due(SETTINGS, 9, runs) == []
    assert baselines.due(SETTINGS, 10, runs) == [("delta_net", 3), ("gated_delta_net", 3)]
    assert len(baselines.due(SETTINGS, 1000, runs)) == 4


def test_noise_is_pooled_within_the_two_baselines():
    known = lab([4.0, 4.1, 4.2], [3.0, 3.1, 3.2])
    noise = known.noise()
    assert noise.loss == pytest.approx(0.1)
    assert noise.freedom == 4
    assert noise.runs == 3
    assert noise.loss_low == pytest.approx(0.1 * math.sqrt(4 / 11.143287), rel=1e-6)
    assert noise.loss_high == pytest.approx(0.1 * math.sqrt(4 / 0.484419), rel=1e-5)
    assert noise.fitness > 0
    assert noise.benchmark > 0


def test_the_reference_of_record_stays_while_the_mean_moves():
    known = lab([4.0, 4.1, 4.2, 5.0], [3.0, 3.1, 3.2, 3.1])
    assert known.reference.loss == pytest.approx(4.1)
    assert known.mean.loss == pytest.approx(4.325)
    assert known.anchor("delta_net").loss == pytest.approx(4.1)


def test_separation_needs_more_than_noise():
    assert lab([4.0, 4.1, 4.2], [3.0, 3.1, 3.2]).separated()
    assert not lab([4.0, 4.1, 4.2], [4.0, 4.12, 4.2]).separated()


def test_winning_margin_holds_its_level_by_simulation():
    """Of single runs that are no better than the baseline, 5 % pass."""
    rng = np.random.default_rng(0)
    wins = 0
    for _ in range(4000):
        delta, gated, new = rng.normal(size=3), rng.normal(size=3), rng.normal()
        sd = math.sqrt((delta.var(ddof=1) + gated.var(ddof=1)) / 2)
        margin = baselines.t_quantile(0.95, 4) * sd * math.sqrt(1 + 1 / 3)
        wins += new < delta.mean() - margin
    assert 0.035 < wins / 4000 < 0.065


def test_the_judges_noise_is_that_of_the_loss_on_its_scale():
    noise = lab([4.0, 4.1, 4.2], [3.0, 3.1, 3.2]).noise()
    assert noise.judge == pytest.approx(5 * 0.1 / 1.0)  # five points over the gap of one nat
    assert lab([4.0, 4.1, 4.2], [4.0, 4.12, 4.2]).noise().judge == 0.0


def test_margin_formula():
    noise = lab([4.0, 4.1, 4.2], [3.0, 3.1, 3.2]).noise()
    assert baselines.winning_margin(noise) == pytest.approx(2.131847 * 0.1 * math.sqrt(4 / 3), rel=1e-5)


def test_too_few_runs_say_what_to_do():
    with pytest.raises(UsageError, match=r"expected 3 runs.*gated_delta_net"):
        lab([4.0, 4.1, 4.2], [3.0])
