"""The measured rubric: its two anchors and what moves a mark."""

import pytest

from asi_lab.analyst.rubric import judge
from asi_lab.records import Evaluation, Evidence, Neighbour, Proposal, Training, Work
from asi_lab.scoring.baselines import Anchor

CODE = ("x = 1\n" * 10, "x = 1\n" * 12)
CHEAP, DEAR = Work(100.0, 100.0), Work(100.0, 144.0)
"""Of sizes 100 and 120."""
LOWER, UPPER = Anchor(4.0, 1000, CHEAP, 50.0), Anchor(3.9, 1200, DEAR, 60.0)


def mark(
    loss=4.0, params=1000, work=CHEAP, code=CODE[0], similarity=1.0, separated=True, cpu=50.0, speed=100.0
):
    nearest = (Neighbour(1, similarity),)
    proposal = Proposal("a", "m", "c", code, "grammar", nearest=nearest)
    training = Training(params, 500, 1, 1, loss, 1.0, speed, 1.0, cpu_seconds=cpu)
    evidence = Evidence((), training, Evaluation(loss, 1, (), 0.0, 1, 1.0), work=work)
    return judge(proposal, evidence, (LOWER, UPPER), CODE, separated)


def points(judgement, name):
    return next(part.points for part in judgement.parts if part.name == name)


def test_delta_net_is_five_and_gated_delta_net_ten():
    assert mark(4.0, 1000, CHEAP, CODE[0]).mark == pytest.approx(5.0)
    assert mark(3.9, 1200, DEAR, CODE[1]).mark == pytest.approx(10.0)


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


def test_size_work_and_long_code_cost_points_and_novelty_earns():
    assert points(mark(params=1500), "complexity") == pytest.approx(-1.0)
    assert points(mark(code=CODE[1] * 2), "complexity") < -0.4
    assert points(mark(params=100_000), "complexity") == -1.5
    assert points(mark(similarity=0.25), "novelty") == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("operations", "moved", "expected"),
    [
        (100.0, 100.0, 0.0),
        (110.0, 110.0, 0.0),  # between the two
        (100.0, 144.0, 0.0),
        (50.0, 50.0, 0.5),  # half of the cheaper one
        (25.0, 100.0, 0.5),  # likewise, in the geometric mean
        (80.0, 80.0, 0.125),
        (1.0, 1.0, 0.5),
        (240.0, 240.0, -0.75),  # twice the dearer one
        (160.0, 160.0, -0.375),
        (1e9, 1e9, -1.5),
    ],
)
def test_efficiency_counts_operations_and_bytes_against_both_references(operations, moved, expected):
    work = Work(operations, moved)
    found = mark(work=work, cpu=work.size / 2)
    assert points(found, "efficiency") == pytest.approx(expected, abs=1e-3)


def test_measured_speed_enters_no_mark():
    """Nor do processor seconds, as long as they do not rule the count out."""
    assert mark(speed=1.0) == mark(speed=1e6) == mark(cpu=149.0) == mark(cpu=0.0)


def test_a_count_that_the_processor_rules_out_is_not_used():
    hidden = mark(work=Work(20.0, 20.0), cpu=31.0)  # 0.62 of DeltaNet's seconds for 0.2 of its work
    assert points(hidden, "efficiency") == -1.5
    assert "over 3 times as dear as it counts" in hidden.parts[2].reason
    assert "31" not in hidden.parts[2].reason  # the reason is the same in every run
    assert points(mark(work=Work(20.0, 20.0), cpu=29.0), "efficiency") == 0.5


def test_what_was_not_counted_is_neutral():
    found = mark(work=None)
    assert points(found, "efficiency") == 0.0
    assert "not counted" in found.parts[2].reason
    old = (Anchor(4.0, 1000), Anchor(3.9, 1200))
    proposal = Proposal("a", "m", "c", CODE[0], "grammar")
    evidence = Evidence((), Training(1, 1, 1, 1, 1.0, 1.0, 1.0, 1.0), Evaluation(4.0, 1, ()), work=CHEAP)
    assert points(judge(proposal, evidence, old, CODE, True), "efficiency") == 0.0


@pytest.mark.parametrize(
    ("loss", "similarity", "shown", "beyond"),
    [
        (3.9, 1.0, 10.0, 0.0),
        (3.88, 1.0, 10.0, 1.0),
        (3.7, 1.0, 10.0, 10.0),
        (3.9, 0.5, 10.0, 0.5),  # the other parts as they are
        (3.91, 1.0, 9.5, 0.0),
    ],
)
def test_above_ten_the_measured_part_goes_on_along_its_line(loss, similarity, shown, beyond):
    found = mark(loss, similarity=similarity)
    assert found.mark == pytest.approx(shown)
    assert found.beyond == pytest.approx(beyond)


def test_without_a_scale_nothing_lies_beyond():
    assert mark(3.0, separated=False, similarity=0.0).beyond == 0.0


def test_what_costs_points_costs_them_beyond_ten_too():
    """There is no step where a mark comes to 10: parameters 1.25 times those of the larger cost a point."""
    assert mark(3.7, params=1500).mark == pytest.approx(9.0)
    assert mark(3.7, params=1500).beyond == pytest.approx(9.0)
