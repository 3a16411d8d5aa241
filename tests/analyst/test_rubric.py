"""The measured rubric: its two anchors and what moves a mark."""

import pytest

from asi_lab.analyst.rubric import judge
from asi_lab.records import Evaluation, Evidence, Neighbour, Proposal, Training
from asi_lab.scoring.baselines import Anchor

CODE = ("x = 1\n" * 10, "x = 1\n" * 12)
LOWER, UPPER = Anchor(4.0, 1000, 100.0), Anchor(3.9, 1200, 80.0)


def mark(loss=4.0, params=1000, speed=100.0, code=CODE[0], similarity=1.0, separated=True, timing=True):
    nearest = (Neighbour(1, similarity),)
    proposal = Proposal("a", "m", "c", code, "grammar", nearest=nearest)
    training = Training(params, 500, 1, 1, loss, 1.0, speed, 1.0)
    evidence = Evidence((), training, Evaluation(loss, 1, (), 0.0, 1, 1.0))
    return judge(proposal, evidence, (LOWER, UPPER), CODE, separated, timing)


def points(judgement, name):
    return next(part.points for part in judgement.parts if part.name == name)


def test_delta_net_is_five_and_gated_delta_net_ten():
    assert mark(4.0, 1000, 100.0, CODE[0]).mark == pytest.approx(5.0)
    assert mark(3.9, 1200, 80.0, CODE[1]).mark == pytest.approx(10.0)


def test_performance_runs_linearly_between_and_beyond():
    assert mark(3.95).mark == pytest.approx(7.5)
    assert mark(4.04).mark == pytest.approx(3.0)
    assert mark(9.0).mark == 1.0
    assert mark(3.0).mark == 10.0


def test_without_a_scale_performance_is_neutral_and_says_so():
    judgement = mark(3.0, separated=False)
    assert points(judgement, "performance") == 0.0
    assert "neutral" in judgement.parts[0].reason
    assert judgement.mark == pytest.approx(5.0)


def test_size_slowness_and_long_code_cost_points_and_novelty_earns():
    assert points(mark(params=1500), "complexity") == pytest.approx(-1.0)
    assert points(mark(code=CODE[1] * 2), "complexity") < -0.4
    assert points(mark(params=100_000), "complexity") == -1.5
    assert points(mark(speed=40.0), "efficiency") == pytest.approx(-0.75)
    assert points(mark(speed=150.0), "efficiency") == pytest.approx(0.25)
    assert points(mark(similarity=0.25), "novelty") == pytest.approx(0.75)


def test_switched_off_timing_makes_the_mark_blind_to_speed():
    assert mark(speed=1.0, timing=False).mark == mark(speed=1e6, timing=False).mark
