"""The fitness formula against figures worked out by hand."""

import math
import random
from statistics import stdev

import pytest

from asi_lab.records import Evaluation, Judgement, Noise, TaskResult
from asi_lab.scoring import fitness
from asi_lab.scoring.fitness import Reference

NOISE = Noise(0.01, 0.01, 0.01, 4, 3, 0.005, 0.03)


def evaluation(loss: float, recall: float = 0.5, bits: float = 2.0) -> Evaluation:
    tasks = (
        TaskResult("recall", recall, "choice_probability", True, 0.25, 100),
        TaskResult("perplexity", bits, "bits_per_byte", False, 3.3, 50),
    )
    return Evaluation(loss, 1000, tasks, 0.0, 16, 1.0)


REFERENCE = fitness.reference_of([evaluation(3.9, 0.4), evaluation(4.1, 0.6)], scale=0.10)


def test_reference_is_the_mean_over_seeds():
    assert REFERENCE.loss == pytest.approx(4.0)
    assert REFERENCE.tasks == {"recall": pytest.approx(0.5), "perplexity": pytest.approx(2.0)}


def test_the_baseline_itself_with_mark_five():
    score = fitness.score(evaluation(4.0), REFERENCE, Judgement(5.0, (), "test"), NOISE)
    assert (score.loss_part, score.benchmark_part) == (0.5, 0.5)
    assert score.judge_part == pytest.approx(4 / 9)
    assert score.fitness == pytest.approx((1 + 4 / 9) / 3)


def test_gains_worked_out_by_hand():
    score = fitness.score(evaluation(3.8, 0.52, 1.9), REFERENCE, Judgement(10.0, (), "test"), NOISE)
    assert score.loss_gain == pytest.approx(0.05)
    assert score.loss_part == pytest.approx(1 / (1 + math.exp(-3.0)))
    assert score.benchmark_gain == pytest.approx((0.04 + 0.05) / 2)
    assert score.benchmark_part == pytest.approx(1 / (1 + math.exp(-6 * 0.45)))
    assert score.judge_part == 1.0


def test_each_task_is_clamped_before_the_mean():
    wild = fitness.benchmark_gain(evaluation(4.0, recall=5.0, bits=2.0), REFERENCE)
    assert wild == pytest.approx(0.05)  # 0.10 for recall, whatever it says, and 0 for perplexity


@pytest.mark.parametrize(("loss", "part"), [(8.0, 1 / (1 + math.exp(6))), (0.1, 1 / (1 + math.exp(-6)))])
def test_extreme_losses_saturate(loss, part):
    assert fitness.parts(evaluation(loss), REFERENCE)[0] == pytest.approx(part)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_never_scores(value):
    with pytest.raises(ValueError, match="no gain"):
        fitness.parts(evaluation(value), REFERENCE)
    with pytest.raises(ValueError, match="no gain"):
        fitness.parts(evaluation(4.0, recall=value), REFERENCE)


def test_implausible_is_more_than_ten_percent_under_the_baseline():
    assert not fitness.is_implausible(evaluation(3.61), REFERENCE, 0.10)
    assert fitness.is_implausible(evaluation(3.59), REFERENCE, 0.10)


def test_the_spread_of_a_run_is_that_of_its_place_on_the_scale():
    """Loss 3 % of the reference, tasks 1 %, mark 0.9 points, at a scale of 10 %: in the middle the sigmoids'
    slopes are 6 / 4 (0.45 and 0.15), at parts of 0.9 6 * 0.09 (0.162 and 0.054); the judge's part has 0.1."""
    reference = Reference(4.0, {}, 0.1)
    noise = Noise(0.12, 0.01, 0.05, 4, 3, 0.1, 0.2, judge=0.9)
    assert fitness.spread((0.5, 0.5), reference, noise) == pytest.approx((0.45 + 0.15 + 0.1) / 3)
    assert fitness.spread((0.9, 0.9), reference, noise) == pytest.approx((0.162 + 0.054 + 0.1) / 3)


def test_the_spread_is_what_runs_vary_by():
    """Fitness over many runs of one architecture, whose loss, tasks and mark are lucky together."""
    rng, reference = random.Random(0), Reference(4.0, {}, 0.2)
    noise = Noise(0.02, 0.005, 0.0, 4, 3, 0.0, 0.0, judge=0.3)
    for gain in (0.0, 0.1, 0.15):
        found = []
        for luck in (rng.gauss(0, 1) for _ in range(4000)):
            loss = fitness.sigmoid_part((gain + luck * 0.02 / 4) / 0.2)
            benchmark = fitness.sigmoid_part((gain + luck * 0.005) / 0.2)
            found.append(fitness.composite((loss, benchmark), fitness.judged(4 + luck * 0.3)))
        parts = (fitness.sigmoid_part(gain / 0.2),) * 2
        assert fitness.spread(parts, reference, noise) == pytest.approx(stdev(found), rel=0.05)


def test_a_probe_counts_a_tenth_of_a_text():
    """Half as much in a probe is no catastrophe: architectures differ there ten times as much as in texts."""
    text = TaskResult("asi_perplexity", 1.9, "bits_per_byte", False, 4.0, 10)
    probe = TaskResult("probe_mqar", 0.25, "answer_probability", True, 0.1, 10)
    base = fitness.Reference(4.0, {"asi_perplexity": 2.0, "probe_mqar": 0.5}, 0.2)
    gain = fitness.benchmark_gain(Evaluation(4.0, 10, (text, probe), 0.0, 1, 1.0), base)
    assert gain == pytest.approx((0.05 - 0.5 / fitness.PROBE_SCALE) / 2)
    lost = fitness.benchmark_gain(Evaluation(4.0, 10, (text, text, probe), 0.0, 1, 1.0), base)
    assert lost == pytest.approx((0.05 + 0.05 - 0.05) / 3)
