"""What is measured when, and the noise floor."""

import json
import math
from statistics import fmean, stdev

import msgspec
import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import digamma, polygamma
from scipy.stats import chi2, t

from asi_lab.errors import UsageError
from asi_lab.lab.config import parse
from asi_lab.records import BaselineRun, CandidateState, Evaluation, Evidence, TaskResult, Training
from asi_lab.scoring import baselines
from asi_lab.scoring.baselines import Baselines
from asi_lab.scoring.statistics import Spread

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


def one_run(groups: list[list[float]]) -> Spread:
    """What one run of another architecture varies by, worked out beside the program: log variances of three
    runs lie log(1) - digamma(1) too low, a prior of 3.5 degrees adds its own, and so does their mean."""
    logs = [math.log(stdev(group) ** 2) - float(digamma(1)) for group in groups]
    of_mean = float(polygamma(1, 1.75) + polygamma(1, 1.0)) / len(groups)
    freedom = 2 * brentq(lambda x: polygamma(1, x) - polygamma(1, 1.75) - of_mean, 1e-3, 1e3)
    bias = math.log(freedom / 2) - float(digamma(freedom / 2))
    return Spread(math.exp((fmean(logs) - bias) / 2), freedom)


def test_noise_is_that_of_an_architecture_with_one_run():
    groups = [4.0, 4.1, 4.2], [3.0, 3.02, 3.04]
    noise, expected = lab(*groups).noise(), one_run([*groups])
    assert noise.loss == pytest.approx(expected.sd)
    assert 0.02 < noise.loss < 0.1  # what varies most does not rule
    assert noise.freedom == pytest.approx(expected.freedom)
    assert noise.runs == 3
    low, high = chi2.ppf([0.975, 0.025], noise.freedom)
    assert noise.loss_low == pytest.approx(noise.loss * math.sqrt(noise.freedom / low))
    assert noise.loss_high == pytest.approx(noise.loss * math.sqrt(noise.freedom / high))
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


def test_the_judges_noise_is_that_of_the_loss_on_its_scale():
    noise = lab([4.0, 4.1, 4.2], [3.0, 3.1, 3.2]).noise()
    assert noise.judge == pytest.approx(5 * noise.loss)  # five points over the gap of one nat
    assert lab([4.0, 4.1, 4.2], [4.0, 4.12, 4.2]).noise().judge == 0.0


def test_a_run_is_judged_by_its_own_variance_and_that_of_the_reference():
    groups = [4.0, 4.1, 4.2], [3.0, 3.02, 3.04]
    known, one = lab(*groups), one_run([*groups])
    found = known.against([2.9], "gated_delta_net")
    theirs = (one.freedom * one.sd**2 + 2 * 0.02**2) / (one.freedom + 2)
    parts = one.sd**2, theirs / 3
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / one.freedom + parts[1] ** 2 / min(4, one.freedom + 2))
    assert found.difference == pytest.approx(-0.12)
    assert found.sd == pytest.approx(math.sqrt(sum(parts)))
    assert found.margin == pytest.approx(t.ppf(0.95, min(4, freedom)) * found.sd)
    assert known.margin("gated_delta_net") == pytest.approx(found.margin)
    assert known.margin("delta_net") > found.margin  # whose runs vary more
    assert known.against([2.9, 2.91, 2.9], "gated_delta_net").margin < found.margin


def test_luck_alone_wins_about_as_often_as_it_says():
    """Runs that are no better than the bar, of architectures that vary as the prior says: one in twenty
    passes, and a little more with the few runs that a lab begins with."""
    rng = np.random.default_rng(0)
    wins = 0
    for _ in range(600):
        own, *theirs = 0.02 * np.sqrt(4.0 / rng.chisquare(4.0, 4))
        groups = [rng.normal(4.0, sd, 5).tolist() for sd in theirs]
        known = several(dict(zip(("delta_net", "gated_delta_net", "mamba2"), groups, strict=True)), "mamba2")
        wins += known.against([rng.normal(4.0, own)], "mamba2").is_better
    assert 0.03 < wins / 600 < 0.10


def several(groups: dict[str, list[float]], bar: str = "", failed: str = "") -> Baselines:
    runs = [run(name, i, loss) for name, losses in groups.items() for i, loss in enumerate(losses)]
    if failed:
        runs.append(BaselineRun(failed, 0, Evidence(failure=CandidateState.DIVERGED, error="NaN")))
    references = f"references = {json.dumps([*groups, *[failed][: bool(failed)]])}"
    return Baselines(parse(f"preset = '20m'\n[baselines]\n{references}\nbar = '{bar}'\n"), runs)


LADDER = {"delta_net": [4.2, 4.21, 4.22], "gated_delta_net": [4.0, 4.01, 4.02], "mamba2": [3.9, 3.91, 3.92]}


def test_the_bar_is_the_best_reference_or_the_one_that_is_named():
    assert several(LADDER).bar == "mamba2"
    assert several(LADDER, "gated_delta_net").bar == "gated_delta_net"
    later = several(LADDER | {"gated_delta_net": [4.0, 4.01, 4.02, 1.0]})
    assert later.bar == "mamba2"  # runs that came later change it no more
    order = [one.reference for one in later.against_all([3.0])]
    assert order == ["mamba2", "delta_net", "gated_delta_net"]


def test_a_reference_that_failed_is_left_out():
    known = several(LADDER, "gla", failed="gla")
    assert known.names == [*LADDER]
    assert known.bar == "mamba2"
    settings = msgspec.structs.replace(SETTINGS, references=(*LADDER, "gla"))
    runs = [BaselineRun("gla", 0, Evidence(failure=CandidateState.DIVERGED, error="NaN"))]
    assert ("gla", 1) not in baselines.due(settings, 0, runs)
    assert ("mamba2", 1) in baselines.due(settings, 0, runs)


def test_a_further_seed_that_fails_is_lost_alone():
    runs = [run(name, i, loss) for name, losses in LADDER.items() for i, loss in enumerate(losses)]
    diverged = Evidence(failure=CandidateState.DIVERGED, error="NaN")
    cut_off = Evidence(failure=CandidateState.INTERRUPTED, error="killed")
    settings = msgspec.structs.replace(LAB.baselines, references=(*LADDER,))
    after = [*runs, BaselineRun("mamba2", 3, diverged), BaselineRun("delta_net", 3, cut_off)]
    assert Baselines(msgspec.structs.replace(LAB, baselines=settings), after).bar == "mamba2"
    assert baselines.due(settings, 10, after) == [("delta_net", 3), ("gated_delta_net", 3)]


def test_marks_of_references_lie_on_the_judges_scale():
    known = several(LADDER | {"hgrn2": [4.1, 4.11, 4.12]})
    assert [known.mark(name) for name in known.names] == [5.0, 10.0, 10.0, pytest.approx(7.5)]
    assert known.fitness("delta_net") == pytest.approx((0.5 + 0.5 + 4 / 9) / 3)
    assert known.fitness("gated_delta_net") > known.fitness("hgrn2") > known.fitness("delta_net")


def test_the_top_of_the_judges_scale_may_be_the_bar():
    groups = LADDER | {"hgrn2": [4.1, 4.11, 4.12]}
    runs = [run(name, i, loss) for name, losses in groups.items() for i, loss in enumerate(losses)]
    names = json.dumps([*groups])
    text = f"preset = '20m'\n[baselines]\nreferences = {names}\nbar = ''\n[judge]\ntop = 'bar'\n"
    known = Baselines(parse(text), runs)
    assert (known.bar, known.top) == ("mamba2", "mamba2")
    assert [known.mark(name) for name in ("delta_net", "gated_delta_net", "mamba2", "hgrn2")] == [
        *(5.0, pytest.approx(5 + 5 * 2 / 3), 10.0, pytest.approx(5 + 5 / 3))
    ]
    assert [anchor.title for anchor in known.anchors()] == ["DeltaNet", "Mamba-2"]


def test_too_few_runs_say_what_to_do():
    with pytest.raises(UsageError, match=r"expected 3 runs.*gated_delta_net"):
        lab([4.0, 4.1, 4.2], [3.0])
