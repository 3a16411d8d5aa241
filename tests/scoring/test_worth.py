"""What a task is worth, on figures whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from asi_lab.records import BaselineRun, Evaluation, Evidence, TaskResult
from asi_lab.scoring import worth
from asi_lab.scoring.worth import LOSS, of_tasks


def drawn(between: float, seeds: float, architectures: int, runs: int) -> dict[str, list[float]]:
    rng = np.random.default_rng([architectures, runs])
    means = between * rng.standard_normal(architectures)
    return {f"a{i}": (mean + seeds * rng.standard_normal(runs)).tolist() for i, mean in enumerate(means)}


def test_both_spreads_are_found():
    found = worth.worth("t", "s", drawn(0.3, 0.1, 2000, 3))
    assert found.between_seeds == pytest.approx(0.1, rel=0.05)
    assert found.between == pytest.approx(0.3, rel=0.05)
    assert found.ratio == pytest.approx(3.0, rel=0.1)
    assert not found.tells_little


def test_where_architectures_are_alike_what_seeds_make_of_means_is_taken_out():
    found = worth.worth("t", "s", drawn(0.0, 0.1, 60, 3))
    assert found.between < 0.02  # the means alone differ by 0.058
    assert found.tells_little
    assert found.decided == pytest.approx(0.5, abs=0.06)


def test_one_seed_decides_most_where_architectures_differ():
    assert worth.worth("t", "s", drawn(1.0, 0.01, 40, 2)).decided > 0.98
    assert worth.worth("t", "s", {"a": [1.0, 2.0], "b": [1.5, 1.5]}).decided == 0.0
    assert worth.worth("t", "s", {"a": [1.0, 1.0], "b": [1.0, 1.0]}).decided == 0.5


def test_without_noise_there_is_no_ratio():
    found = worth.worth("t", "s", {"a": [1.0, 1.0], "b": [2.0, 2.0]})
    assert (found.between_seeds, found.ratio, found.tells_little) == (0.0, None, False)


def a_run(name: str, index: int, loss: float, score: float, right: float | None = None) -> BaselineRun:
    metrics = {} if right is None else {"acc": right, "acc_norm": 0.0}
    tasks = (TaskResult("choices", score, "choice_probability", True, 0.25, 40, metrics),)
    return BaselineRun(name, index, Evidence(evaluation=Evaluation(loss, 100, tasks)))


def test_tasks_stand_in_the_order_of_their_worth():
    runs = [a_run("x", 0, 4.0, 0.30), a_run("x", 1, 4.01, 0.34), a_run("y", 1, 3.01, 0.35)]
    runs += [a_run("y", 0, 3.0, 0.29), a_run("once", 0, 2.0, 0.9)]
    loss, choices = of_tasks(runs)
    assert (loss.task, loss.architectures, loss.runs) == (LOSS, 2, 4)  # who has one run says nothing of seeds
    assert (choices.task, choices.chance, choices.samples) == ("choices", 0.25, 40)
    assert loss.ratio > 50
    assert choices.tells_little


def test_below_a_task_stands_its_accuracy_which_may_be_a_coin_flip():
    runs = [a_run("x", 0, 4.0, 0.30, 0.50), a_run("x", 1, 4.1, 0.31, 0.55)]
    runs += [a_run("y", 0, 3.0, 0.60, 0.52), a_run("y", 1, 3.0, 0.61, 0.53)]
    found = [(one.task, one.score_name, one.tells_little, one.chance) for one in of_tasks(runs)]
    assert [one for one in found if one[0] == "choices"] == [
        ("choices", "choice_probability", False, 0.25),
        ("choices", "accuracy", True, 0.25),
    ]
    without = of_tasks([*runs, a_run("z", 0, 3.0, 0.5), a_run("z", 1, 3.0, 0.5)])
    assert {one.score_name for one in without} == {"nats", "choice_probability"}  # not all have one


def test_two_architectures_with_two_runs_are_needed():
    assert of_tasks([]) == []
    assert of_tasks([a_run("x", 0, 4.0, 0.3), a_run("x", 1, 4.0, 0.3), a_run("y", 0, 3.0, 0.3)]) == []


def test_what_a_task_costs_is_the_mean_of_its_runs():
    def run(name: str, index: int, seconds: float) -> BaselineRun:
        tasks = (
            TaskResult("t", 0.5 + index / 10, "s", True, 0.25, 10, seconds=seconds),
            TaskResult("old", 0.5 + index / 10, "s", True, 0.25, 10),
        )
        return BaselineRun(name, index, Evidence(evaluation=Evaluation(4.0 + index, 10, tasks)))

    found = {one.task: one for one in of_tasks([run(n, i, 1.0 + i) for n in "ab" for i in range(2)])}
    assert found["t"].seconds == 1.5
    assert found["old"].seconds is None
    assert found[LOSS].seconds is None
