"""Fair learning rates: which runs are asked for, which rate is best, how orders compare."""

from __future__ import annotations

import math

import pytest
from scipy.stats import spearmanr

from asi_lab.engine import Engine
from asi_lab.lab import Store
from asi_lab.records import TUNING_SEED, BaselineRun, CandidateState, Evaluation, Evidence, Run
from asi_lab.scoring import races, tuning
from asi_lab.scoring.tuning import LEAST_SEEDS, best_rates, spearman, tuned, wanted
from tests import simulated_engine

SEEDS = [TUNING_SEED, TUNING_SEED + 1, TUNING_SEED + 2]
NOISE = (0.01, -0.02, 0.01)


def ended(name: str, rate: float, losses: tuple[float, ...]) -> list[BaselineRun]:
    return [
        BaselineRun(name, seed, Evidence(evaluation=Evaluation(loss, 1, ())), rate)
        for seed, loss in zip(SEEDS, losses, strict=False)
    ]


def failed(name: str, rate: float, seed: int = TUNING_SEED) -> BaselineRun:
    return BaselineRun(name, seed, Evidence(failure=CandidateState.DIVERGED, error="step 9: loss nan"), rate)


def curve(name: str, best: float, steep: float = 0.1) -> list[BaselineRun]:
    """Three seeds at every rate from 1/64 to 64: the mean loss is lowest at `best`."""
    rates = [2.0**power for power in range(-6, 7)]
    means = {rate: 4.0 + steep * abs(math.log2(rate / best)) for rate in rates}
    return [run for rate, mean in means.items() for run in ended(name, rate, tuple(mean + n for n in NOISE))]


def rates_of(runs: list[Run]) -> list[float]:
    return sorted({run.rate for run in runs})


def until_nothing_is_due(names: list[str], have: list[BaselineRun]) -> list[BaselineRun]:
    """What is measured in the end, of the runs that could be."""
    found: list[BaselineRun] = []
    while due := races.due(lambda done: wanted(names, 3, done), found):
        found += [run for run in have if run.run in due]
    return found


def test_first_the_three_rates_seed_by_seed():
    runs = wanted(["a", "b"], 3, [])
    assert [(run.architecture, run.rate) for run in runs[:6]] == [
        *(("a", 0.5), ("a", 1.0), ("a", 2.0), ("b", 0.5), ("b", 1.0), ("b", 2.0))
    ]
    assert [run.seed_index for run in runs] == [seed for seed in SEEDS for _ in range(6)]


@pytest.mark.parametrize(
    ("best", "tried"),
    [
        (1.0, [0.5, 1.0, 2.0]),
        (2.0, [0.5, 1.0, 2.0, 4.0]),
        (4.0, [0.5, 1.0, 2.0, 4.0, 8.0]),
        (64.0, [0.5, 1.0, 2.0, 4.0, 8.0]),
        (0.25, [0.125, 0.25, 0.5, 1.0, 2.0]),
        (1 / 64, [0.125, 0.25, 0.5, 1.0, 2.0]),
    ],
)
def test_further_while_the_best_lies_at_the_edge_and_no_further_than_stated(best, tried):
    measured = until_nothing_is_due(["a"], curve("a", best))
    assert rates_of([run.run for run in measured]) == tried
    assert best_rates(["a"], 3, measured) == {"a": min(max(best, tried[0]), tried[-1])}


def test_the_best_is_unknown_until_all_has_ended():
    whole = until_nothing_is_due(["a"], curve("a", 2.0))
    assert best_rates(["a"], 3, whole[:-1]) == {"a": None}
    assert best_rates(["a"], 3, whole) == {"a": 2.0}
    assert best_rates(["a"], 3, whole[::-1]) == {"a": 2.0}  # in whatever order they came


def test_within_noise_of_the_presets_rate_that_one_is_kept():
    edges = ended("a", 0.5, (5.0, 5.0, 5.0)) + ended("a", 4.0, (5.0, 5.0, 5.0))
    preset = ended("a", 1.0, (4.0, 4.0, 4.0))
    for gains, best in (((0.03, 0.0, 0.0), 1.0), ((0.03, 0.03, 0.0), 2.0), ((0.02, 0.02, 0.02), 2.0)):
        other = ended("a", 2.0, tuple(4.0 - gain for gain in gains))
        (lane,) = tuned(["a"], 3, edges + preset + other, 0.01, {}).lanes
        assert (lane.best, lane.is_tie) == (best, best == 1.0)
        assert lane.gain == pytest.approx(sum(gains) / 3)
    assert lane.error == pytest.approx(0.0, abs=1e-12)  # paired: seed by seed the same gain


def test_seeds_that_count_and_other_rates_of_theirs_tell_nothing():
    counted = [BaselineRun("a", 0, Evidence(evaluation=Evaluation(1.0, 1, ())), rate) for rate in (1.0, 2.0)]
    assert wanted(["a"], 3, counted) == wanted(["a"], 3, [])


def test_where_a_run_failed_the_rate_is_not_chosen_and_takes_no_further_ones():
    runs = [*ended("a", 0.5, (4.2, 4.2, 4.2)), *ended("a", 1.0, (4.1, 4.1, 4.1))]
    runs += [*ended("a", 2.0, (3.0,)), failed("a", 2.0, TUNING_SEED + 1)]
    assert not races.due(lambda done: wanted(["a"], 3, done), runs)
    (lane,) = tuned(["a"], 3, runs, 0.01, {}).lanes
    assert lane.losses == {0.5: pytest.approx(4.2), 1.0: pytest.approx(4.1), 2.0: None}
    assert lane.best == 1.0


def test_where_the_presets_rate_or_every_rate_failed():
    below = ended("a", 0.5, (4.2, 4.2, 4.2)) + ended("a", 0.25, (4.3, 4.3, 4.3))
    assert best_rates(["a"], 3, [*below, failed("a", 1.0), failed("a", 2.0)]) == {"a": 0.5}
    nothing = [failed("a", rate) for rate in tuning.RATES]
    assert best_rates(["a"], 3, nothing) == {"a": None}
    assert not races.due(lambda done: wanted(["a"], 3, done), nothing)


def test_the_order_at_each_rate_against_that_at_own_best_rates():
    means = {
        "a": {0.5: 4.1, 1.0: 4.0, 2.0: 4.4},
        "b": {0.5: 4.3, 1.0: 4.2, 2.0: 4.5},
        "c": {0.5: 4.2, 1.0: 4.4, 2.0: 4.3},
    }
    runs = [
        run
        for name, of in means.items()
        for rate, mean in of.items()
        for run in ended(name, rate, (mean,) * 3)
    ]
    runs += ended("c", 0.25, (4.5, 4.5, 4.5))
    own = {"a": 4.0, "b": 4.21, "c": 4.2}
    found = tuned(list(means), 3, runs, 0.01, own)
    assert [rate.rate for rate in found.rates] == [0.25, 0.5, 1.0, 2.0]
    assert [rate.learning_rate for rate in found.rates] == pytest.approx([0.0025, 0.005, 0.01, 0.02])
    assert found.rates[0].correlation is None  # only one of them was measured there
    assert [rate.correlation for rate in found.rates[1:]] == pytest.approx([1.0, 0.5, 0.5])
    assert found.highest == 0.5
    assert tuned(list(means), 3, runs, 0.01, {"a": 4.0, "b": 4.2}).highest is None  # two say nothing


def test_who_failed_at_a_rate_comes_last_there():
    runs = [run for name in "abc" for run in ended(name, 1.0, (4.0 + ord(name) / 1000,) * 3)]
    runs += [run for name in "bc" for run in ended(name, 2.0, (4.0 + ord(name) / 1000,) * 3)]
    runs += [failed("a", 2.0)]
    found = tuned(["a", "b", "c"], 3, runs, 0.01, {"a": 1.0, "b": 2.0, "c": 3.0})
    assert {rate.rate: rate.correlation for rate in found.rates} == pytest.approx({1.0: 1.0, 2.0: -0.5})
    assert found.highest == 1.0


def test_rank_correlation_is_spearmans():
    first, second = [3.0, 1.0, 1.0, 5.0, math.inf], [2.0, 2.5, 1.0, 4.0, 3.0]
    assert spearman(first, second) == pytest.approx(spearmanr(first, second).statistic)
    assert spearman([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]) is None


@pytest.fixture
def lab(tmp_path):
    return simulated_engine.make_lab(tmp_path, "")


NAMES = ["delta_net", "mamba2", "fusion_gated_fir_net"]


def race(lab) -> int:
    executor = simulated_engine.SimulatedExecutor(0.0)
    return Engine(lab, simulated_engine.Silent(), executor).race(races.plan(NAMES, 2, LEAST_SEEDS))


def read(lab):
    with Store.open_readonly(lab.store) as store:
        return (
            races.read(store, lab.settings(), NAMES, 2, LEAST_SEEDS),
            store.reference_runs(),
            store.baselines(),
        )


def test_a_race_that_tunes_counts_no_run_of_tuning(lab, monkeypatch):
    jobs = {}
    script = simulated_engine.SimulatedTrio._script

    def note(self, job, score, files):
        jobs[simulated_engine.file_name(files)] = job
        return script(self, job, score, files)

    monkeypatch.setattr(simulated_engine.SimulatedTrio, "_script", note)
    assert race(lab) == 0
    found, runs, baselines = read(lab)
    assert {run.run for run in baselines} == {Run(name, index) for name in NAMES for index in range(2)}
    assert [lane.runs for lane in (*found.lanes, *found.own.lanes)] == [2] * 6
    best = {lane.architecture: lane.best for lane in found.tuning.lanes}
    assert set(best.values()) != {1.0}  # else the runs below say little
    for name, rate in best.items():
        assert {run.rate for run in runs if run.architecture == name and run.seed_index < 2} == {1.0, rate}
    assert len(jobs) == len(runs)  # no two runs share a folder
    rate = jobs["mamba2-seed1001-rate0.5"].train.learning_rate
    assert rate == pytest.approx(0.5 * lab.settings().train.learning_rate)
    assert len({job.seed for job in jobs.values()}) == 5 * 3  # the same seeds at each rate
    before = len(jobs)
    assert race(lab) == 0
    assert len(jobs) == before


def test_a_run_that_fails_is_told_and_the_others_go_on(lab, monkeypatch):
    monkeypatch.setenv("SIMULATED_FAILING", "mamba2-seed1 delta_net-seed1000-rate2")
    assert race(lab) == 0
    found, _, _ = read(lab)
    assert {(run.architecture, run.seed_index, run.rate) for run in found.failed} == {
        *(("mamba2", 1, 1.0), ("delta_net", 1000, 2.0))
    }
    assert not found.is_whole
    assert all("after 3 steps" in run.why for run in found.failed)
    assert {lane.architecture: lane.runs for lane in found.lanes}["mamba2"] == 1
    (lane,) = (lane for lane in found.tuning.lanes if lane.architecture == "delta_net")
    assert lane.losses[2.0] is None
    assert lane.best != 2.0
    with Store.open_readonly(lab.store) as store:
        warned = [event.message for event in store.events(0, 10_000) if event.kind == "warning"]
    assert len(warned) == 2
    assert any("delta_net seed 1000 at 2 times the learning rate failed" in message for message in warned)
