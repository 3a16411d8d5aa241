"""The judge as a language model: what it is told, its scale, and the mark that comes of it."""

from statistics import fmean

import msgspec
import pytest

from asi_lab.analyst import judge
from asi_lab.analyst.judge import Marks, Scale
from asi_lab.lab.config import from_preset
from asi_lab.llm.ask import RoleFailed
from asi_lab.records import BaselineRun, Evaluation, Evidence, HeldOut, TaskResult, Training, Work
from asi_lab.scoring import references
from asi_lab.scoring.baselines import Baselines
from tests.asking import Prepared

CODE = (references.source("delta_net"), references.source("gated_delta_net"))
FINE = Scale(5.0, 10.0)


def run(loss: float, params: int = 1000, speed: float = 500.0, cpu: float = 20.0) -> Evidence:
    task = TaskResult("recall", 0.5 + (4.0 - loss) / 10, "choice_probability", True, 0.25, 10)
    held_out = (HeldOut(20, loss + 1, 0.0, 0.1), HeldOut(50, loss + 0.2, 0.0, 0.1))
    return Evidence(
        (),
        Training(params, 500, 100, 1000, loss, 1.0, speed, 10.0, cpu_seconds=cpu),
        Evaluation(loss, 10, (task,), 0.0, 1, 1.0),
        held_out=held_out,
        work=Work(1000.0 * params, 300.0 * params),
    )


def known(upper: float = 3.9) -> Baselines:
    runs = [
        BaselineRun(name, i, run(middle + offset, params))
        for name, middle, params in (("delta_net", 4.0, 1000), ("gated_delta_net", upper, 1200))
        for i, offset in enumerate((-0.01, 0.0, 0.01))
    ]
    return Baselines(from_preset("20m"), runs)


def candidate(make_candidate, loss: float, **changes):
    found = make_candidate(3, code="class DeltaNet:\n    '''The best layer.'''\n    x = 1  # superb\n")
    proposal = msgspec.structs.replace(found.proposal, **changes)
    return msgspec.structs.replace(found, evidence=run(loss, 1500, 400.0), proposal=proposal)


def opinions(*marks: tuple[int, int, int]):
    return [Marks(*three, "c", "e", f"n{i}") for i, three in enumerate(marks)]


def judged(make_candidate, loss=4.0, scale=FINE, given=((5, 5, 5),), baselines=None, near=(), **changes):
    ask = Prepared(judge=opinions(*given))
    found = candidate(make_candidate, loss, **changes)
    judgement = judge.judge(ask, found, near, baselines or known(), scale, len(given))
    return judgement, ask


@pytest.mark.parametrize(("loss", "points"), [(4.0, 0.0), (3.9, 5.0), (3.95, 2.5), (4.04, -2.0), (9.0, -4.0)])
def test_performance_is_computed_and_counts_a_quarter(make_candidate, loss, points):
    judgement, _ = judged(make_candidate, loss)
    performance = judgement.parts[0]
    assert performance.points == pytest.approx(points)
    assert judgement.mark == pytest.approx((5 + points + 3 * 5) / 4, abs=1e-3)


def test_the_median_of_the_opinions_counts_and_all_of_them_are_kept(make_candidate):
    judgement, _ = judged(make_candidate, given=((5, 5, 5), (10, 10, 10), (6, 7, 8)))
    assert judgement.marks == (5.0, 10.0, 7.0)
    assert judgement.mark == pytest.approx((5 + 3 * 7) / 4)
    named = {part.name: part for part in judgement.parts}
    assert (named["complexity"].points, named["efficiency"].points, named["novelty"].points) == (1, 2, 3)
    assert named["novelty"].reason == "n2"  # of the opinion in the middle
    assert judgement.judge == "openai:prepared"


def test_a_judge_s_scale_is_stretched_so_that_the_references_get_5_and_10(make_candidate):
    harsh = Scale(3.0, 7.0)
    for given, right in (((3, 3, 3), 5.0), ((7, 7, 7), 10.0), ((5, 5, 5), 7.5), ((9, 9, 9), 10.0)):
        judgement, _ = judged(make_candidate, scale=harsh, given=(given,))
        assert judgement.mark == pytest.approx((5 + 3 * right) / 4, abs=1e-3)
        assert judgement.marks == (fmean(given),)
        scale = judgement.parts[-1]
        assert (scale.name, scale.points) == ("scale", pytest.approx(right - fmean(given)))
        assert "this judge gives DeltaNet 3.0 and Gated DeltaNet 7.0" in scale.reason
    assert Scale(5.0, 10.0).put_right(0.5) == 1.0


@pytest.mark.parametrize("scale", [Scale(6.0, 6.5), Scale(8.0, 4.0)])
def test_a_judge_that_does_not_tell_the_references_apart_has_no_scale(make_candidate, scale):
    judgement, _ = judged(make_candidate, scale=scale, given=((7, 7, 7),))
    assert not scale.is_usable
    assert judgement.parts[-1].points == 0
    assert judgement.parts[-1].reason.startswith("left as it is: this judge gives DeltaNet")
    assert judgement.mark == pytest.approx((5 + 3 * 7) / 4)


def test_the_references_are_marked_as_candidates_are():
    ask = Prepared(judge=opinions((4, 4, 4), (5, 5, 5), (4, 5, 6), (8, 8, 8), (9, 9, 9), (7, 7, 7)))
    scale = judge.scale(ask, CODE, known(), 3)
    assert scale == Scale(5.0, 8.0)
    first, last = ask.asked["judge"][0], ask.asked["judge"][-1]
    assert "| the candidate | DeltaNet | Gated DeltaNet | sd of one run |" in first["rubric_facts"]
    noise = f"{known().noise().loss:.4f}"
    assert f"| held-out loss, end | 4.0000 | 4.0000 | 3.9000 | {noise} |" in first["rubric_facts"]
    assert f"| held-out loss, end | 3.9000 | 4.0000 | 3.9000 | {noise} |" in last["rubric_facts"]
    assert "gated_delta_rule" not in first["code"]
    assert "gated_delta_rule" in last["code"]
    assert "arXiv" not in first["code"]  # docstrings would say which one it is


def test_the_judge_is_told_figures_and_noise_and_no_prose(make_candidate):
    near = [make_candidate(2, change="a gate per head"), make_candidate(1, change="a longer convolution")]
    _, ask = judged(make_candidate, 3.95, near=near, motivation="It wins by far.")
    (values,) = ask.asked["judge"]
    told = values["rubric_facts"]
    noise = f"{known().marks()[20][1]:.4f}"
    for line in (
        f"| held-out loss, 20 steps | 4.9500 | 5.0000 | 4.9000 | {noise} |",
        "| recall: choice_probability, higher is better, chance 0.25 | 0.5050 | 0.5000 | 0.5100 | ",
        "| parameters | 1,500 | 1,000 | 1,200 | - |",
        "| operations a token | 1,500k | 1,000k | 1,200k | - |",
        "| bytes moved a token | 450k | 300k | 360k | - |",
        "and better than DeltaNet beyond noise.",
        "Earlier ideas that are most like its own:\n- a gate per head: loss 3.9980, ",
        "\n- a longer convolution: loss 3.9990",
    ):
        assert line in told
    assert values["code"] == "class DeltaNet:\n    x = 1"
    assert "wins" not in str(values)


def test_the_first_idea_has_nothing_to_be_like(make_candidate):
    _, ask = judged(make_candidate)
    assert "most like its own:\n- none" in ask.asked["judge"][0]["rubric_facts"]


def test_nothing_that_was_timed_is_told(make_candidate):
    """The judge reads the same on a busy machine, so a stored reply fits."""
    told = []
    for speed, cpu in ((400.0, 20.0), (40.0, 35.0)):
        ask = Prepared(judge=opinions((5, 5, 5)))
        found = msgspec.structs.replace(candidate(make_candidate, 4.0), evidence=run(4.0, 1500, speed, cpu))
        judge.judge(ask, found, (), known(), FINE, 1)
        told.append(ask.asked["judge"])
    assert told[0] == told[1]


def test_a_count_that_the_processor_rules_out_is_not_told(make_candidate):
    ask = Prepared(judge=opinions((5, 5, 5)))
    found = msgspec.structs.replace(candidate(make_candidate, 4.0), evidence=run(4.0, 1500, cpu=91.0))
    judge.judge(ask, found, (), known(), FINE, 1)
    assert "| operations a token | - | 1,000k | 1,200k | - |" in ask.asked["judge"][0]["rubric_facts"]


def test_beyond_ten_the_measured_quarter_goes_on(make_candidate):
    judgement, _ = judged(make_candidate, 3.8, given=((10, 10, 10),))
    assert judgement.mark == pytest.approx(10.0)
    assert judgement.beyond == pytest.approx(5 / 4)
    judgement, _ = judged(make_candidate, 3.8, given=((8, 8, 8),))
    assert judgement.mark == pytest.approx((10 + 24) / 4)
    assert judgement.beyond == 0.0


def test_where_the_references_do_not_differ_performance_is_neutral(make_candidate):
    judgement, _ = judged(make_candidate, 3.5, baselines=known(upper=4.001))
    assert judgement.parts[0].points == 0.0
    assert "neutral" in judgement.parts[0].reason


def test_a_mark_out_of_range_is_no_opinion(make_candidate):
    with pytest.raises(RoleFailed, match="`efficiency` must lie between 1 and 10; found 11"):
        judged(make_candidate, given=((5, 11, 5),))
