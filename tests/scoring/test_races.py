"""Races: the figures by hand, a race that is cut off, one in a lab that has searched."""

from __future__ import annotations

import io
import math
import signal
from statistics import stdev

import msgspec
import pytest
from rich.console import Console

from asi_lab.engine import Engine
from asi_lab.errors import LabLocked
from asi_lab.lab import Store, fsck
from asi_lab.lab.config import from_preset
from asi_lab.records import (
    TUNING_SEED,
    BaselineRun,
    CandidateState,
    Evaluation,
    Evidence,
    TaskResult,
    Training,
)
from asi_lab.scoring import races, references
from asi_lab.scoring.baselines import ARCHITECTURES
from asi_lab.scoring.statistics import prior_of
from asi_lab.view import races as view
from tests import simulated_engine

SETTINGS = from_preset("micro")
LOSSES = {"delta_net": (4.0, 4.1, 4.2), "mamba2": (3.5, 3.7, 3.6), "gated_delta_net": (4.05, 4.15)}


def a_run(name: str, index: int, loss: float) -> BaselineRun:
    tasks = (
        TaskResult("choices", 0.25 + loss / 100, "choice_probability", True, 0.25, 10),
        TaskResult("words", loss / 2, "bits_per_byte", False, 3.0, 10),
    )
    training = Training(1000 + len(name), 500, 3, 30, loss, 1.0, 100.0 + index, 10.0)
    return BaselineRun(
        name, index, Evidence(training=training, evaluation=Evaluation(loss, 100, tasks, 0.0, 4, 0.1))
    )


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "store") as store:
        for name, losses in LOSSES.items():
            for index, loss in enumerate(losses):
                store.put_baseline(a_run(name, index, loss))
        yield store


def test_means_differences_and_intervals(store):
    found = races.read(store, SETTINGS, list(LOSSES), 3)
    assert [(lane.architecture, lane.runs) for lane in found.lanes] == [
        *(("delta_net", 3), ("mamba2", 3), ("gated_delta_net", 2)),
    ]
    first, second, third = found.lanes
    assert (first.loss.mean, first.loss.difference, first.loss.interval) == (pytest.approx(4.1), None, None)
    assert second.loss.mean == pytest.approx(3.6)
    assert second.loss.difference == pytest.approx(-0.5)
    noise = math.sqrt(sum((len(group) - 1) * stdev(group) ** 2 for group in LOSSES.values()) / 5)
    assert found.noise["loss"] == pytest.approx(noise)
    prior = prior_of([*LOSSES.values()], 3.5)
    assert first.loss.sd == pytest.approx(prior.moderated(LOSSES["delta_net"]).sd)
    spread = prior.difference(prior.of_mean(LOSSES["mamba2"]), prior.of_mean(LOSSES["delta_net"]))
    assert second.loss.interval == pytest.approx(spread.margin(0.025))
    assert second.loss.beyond_noise
    assert not third.loss.beyond_noise
    assert first.tokens_per_second == 101.0
    assert second.params == 1006


def test_who_varies_less_is_known_better(store):
    for name, width in (("gla", 1e-3), ("hgrn2", 0.5), ("comba", 1e-3)):
        for index in range(5):
            store.put_baseline(a_run(name, index, 4.0 + width * (index - 2)))
    lanes = races.read(store, SETTINGS, ["gla", "hgrn2", "comba"], 5).lanes
    found = {lane.architecture: lane.loss for lane in lanes}
    assert found["gla"].sd < 0.02 < 0.5 < found["hgrn2"].sd
    assert found["comba"].interval < 0.1 * found["hgrn2"].interval


def test_scores_their_average_and_the_gain(store):
    found = races.read(store, SETTINGS, ["delta_net", "mamba2"], 3)
    first, second = found.lanes
    assert second.tasks["choices"].mean == pytest.approx(0.286)
    assert second.average == second.tasks["choices"]  # the one where higher is better
    assert second.tasks["words"].difference == pytest.approx(-0.25)
    assert first.benchmark.mean == pytest.approx(0.0)
    gain = ((0.286 - 0.291) / 0.291 + 0.25 / 2.05) / 2
    assert second.benchmark.mean == pytest.approx(gain)


def test_accuracies_stand_beside_the_scores(store):
    def right(run: BaselineRun, share: float) -> BaselineRun:
        choices, words = run.evidence.evaluation.tasks
        choices = msgspec.structs.replace(choices, metrics={"acc": share, "acc_norm": 1.0})
        evaluation = msgspec.structs.replace(run.evidence.evaluation, tasks=(choices, words))
        evidence = msgspec.structs.replace(run.evidence, evaluation=evaluation)
        return msgspec.structs.replace(run, evidence=evidence)

    assert races.read(store, SETTINGS, list(LOSSES), 3).lanes[0].accuracies == {}
    for share, run in zip((0.3, 0.4, 0.5, 0.6, 0.2, 0.3, 0.4, 0.5), store.baselines(), strict=True):
        store.put_baseline(right(run, share))
    found = races.read(store, SETTINGS, ["delta_net", "mamba2"], 3)
    first, second = found.lanes
    assert first.accuracies == {"choices": first.average_accuracy}
    assert (first.average_accuracy.mean, second.average_accuracy.mean) == pytest.approx((0.4, 0.4))
    assert second.accuracies["choices"].difference == pytest.approx(0.0)
    assert found.noise["choices accuracy"] == pytest.approx(0.1)
    assert second.average == second.tasks["choices"]  # the score itself stays as it was
    shown = Console(width=80, file=io.StringIO())
    shown.print(view.race(found, 80))
    assert "0.2910  (0.400)" in shown.file.getvalue()


def test_one_run_of_each_has_no_noise_and_no_verdict(store):
    found = races.read(store, SETTINGS, ["delta_net", "mamba2"], 1)
    assert found.noise == {}
    assert found.lanes[1].loss == races.Figure(3.5, pytest.approx(-0.5), None)
    assert not found.lanes[1].loss.beyond_noise


def test_a_race_that_is_not_over_has_a_noise(store):
    store.put_baseline(a_run("gla", 0, 3.9))
    found = races.read(store, SETTINGS, ["delta_net", "gla"], 2)
    assert [lane.runs for lane in found.lanes] == [2, 1]
    assert found.noise["loss"] == pytest.approx(stdev(LOSSES["delta_net"][:2]))


def test_runs_of_tuning_are_no_baselines_and_failed_ones_are_told(store):
    before = store.baselines()
    store.put_baseline(msgspec.structs.replace(a_run("mamba2", 0, 3.0), rate=2.0))
    store.put_baseline(a_run("mamba2", TUNING_SEED, 3.0))
    store.put_baseline(BaselineRun("mamba2", 5, Evidence(failure=CandidateState.DIVERGED, error="")))
    assert [run for run in store.baselines() if not run.failure] == before
    assert len(store.reference_runs()) == len(before) + 3
    found = races.read(store, SETTINGS, ["delta_net", "mamba2"], 6)
    assert [(run.architecture, run.seed_index, run.why) for run in found.failed] == [
        ("mamba2", 5, "diverged: no message")
    ]
    assert found.lanes[1].loss.mean == pytest.approx(3.6)
    store.put_baseline(a_run("mamba2", 5, 3.6))  # tried again, it did not fail
    assert races.read(store, SETTINGS, ["delta_net", "mamba2"], 6).is_whole


def test_what_the_machine_may_be_to_blame_for_is_tried_again():
    for state, again in ((CandidateState.DIVERGED, False), (CandidateState.OUT_OF_MEMORY, True)):
        assert races.may_pass(BaselineRun("mamba2", 0, Evidence(failure=state))) is again


def test_what_has_no_run_is_left_out(store):
    assert [lane.architecture for lane in races.read(store, SETTINGS, ["x", "mamba2"], 3).lanes] == ["mamba2"]
    assert races.read(store, SETTINGS, ["x"], 3).lanes == ()


def test_runs_go_seed_by_seed():
    assert [tuple(run) for run in races.runs(["a", "b", "a"], 2)] == [
        *(("a", 0, 1.0), ("b", 0, 1.0), ("a", 1, 1.0), ("b", 1, 1.0))
    ]


def test_all_references_are_known():
    names = references.names()
    assert tuple(names[:2]) == ARCHITECTURES
    assert set(names[2:]) == {
        *("mamba2", "path_gate_fusion_net", "content_sharp_router", "fusion_gated_fir_net"),
        *("hier_gate_net", "ada_multi_path_gate_net"),
        *("mamba3", "gla", "hgrn2", "kimi_delta_attention", "gated_delta_product", "comba", "rwkv7"),
    }
    assert all("class DeltaNet(" in references.source(name) for name in names)


@pytest.fixture
def lab(tmp_path):
    return simulated_engine.make_lab(tmp_path, "[baselines]\nseeds = 2\nmax_seeds = 2\n")


def engine(lab, view=None, delay=0.0):
    return Engine(lab, view or simulated_engine.Silent(), simulated_engine.SimulatedExecutor(delay))


class AsksToStop(simulated_engine.Silent):
    """Presses Ctrl+C whenever the third run comes further: at first it only ends after that run."""

    def working(self, label, stage, progress):
        if label == "delta_net-seed1":
            signal.raise_signal(signal.SIGINT)


def results(lab):
    with Store.open_readonly(lab.store) as store:
        return {(run.architecture, run.seed_index): run.evidence.evaluation.loss for run in store.baselines()}


def test_a_race_that_is_cut_off_goes_on_where_it_was(lab):
    plan = races.plan(["delta_net", "mamba2"], 2)
    assert engine(lab, AsksToStop()).race(plan) == 130
    before = results(lab)
    assert list(before) == [("delta_net", 0), ("mamba2", 0)]
    assert engine(lab).race(plan) == 0
    after = results(lab)
    assert len(after) == 4
    assert before.items() < after.items()  # and what was there is not measured again


def test_a_search_takes_the_runs_of_its_baselines_over(lab):
    engine(lab).race(races.plan(["delta_net", "mamba2"], 1))
    raced = results(lab)
    engine(lab).search(3, None)
    losses = results(lab)
    assert raced.items() < losses.items()
    with Store.open_readonly(lab.store) as store:
        assert [candidate.id for candidate in store.candidates()] == [0, 1, 2, 3]
        seed = store.get(0).evidence.evaluation
    assert seed.loss == pytest.approx((losses["delta_net", 0] + losses["delta_net", 1]) / 2)


def test_a_race_leaves_a_finished_search_as_it_is(lab):
    engine(lab).search(3, None)
    with Store.open_readonly(lab.store) as store:
        before = [msgspec.to_builtins(candidate) for candidate in store.candidates()]
    engine(lab).race(races.plan(references.names(), 3))
    with Store.open_readonly(lab.store) as store:
        assert [msgspec.to_builtins(candidate) for candidate in store.candidates()] == before
        assert not fsck.check(store, lab.lineage, lab.config.read_text())
    assert len(results(lab)) == 3 * len(references.names())


def test_a_race_needs_the_lab_for_itself(lab):
    with lab.locked(), pytest.raises(LabLocked):
        engine(lab).race(races.plan(["delta_net"], 1))
