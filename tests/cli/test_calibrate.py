"""The command `calibrate`: what is known about pruning, from nothing to a lab that prunes."""

from __future__ import annotations

import json

import msgspec
import pytest

from asi_lab.lab import Store
from asi_lab.records import HeldOut

STEPS = (32, 64)


@pytest.fixture
def measured(copied):
    """A lab with baselines and 64 candidates whose held-out losses at two marks tell what becomes of them."""
    with Store.open(copied.store) as store:
        for run in store.baselines():
            curve = tuple(HeldOut(step, 5.0 + 0.01 * run.seed_index, 0.0, 0.1) for step in STEPS)
            evidence = msgspec.structs.replace(run.evidence, held_out=curve)
            store.put_baseline(msgspec.structs.replace(run, evidence=evidence))
        done = next(candidate for candidate in store.candidates(1) if candidate.score is not None)
        for number in range(1, 65):
            curve = tuple(HeldOut(step, 4.0 + number / 640, 0.0, 0.1) for step in STEPS)
            score = msgspec.structs.replace(done.score, fitness=1 - number / 100)
            evidence = msgspec.structs.replace(done.evidence, held_out=curve)
            store.put(msgspec.structs.replace(done, id=number, score=score, evidence=evidence))
    return copied


def test_before_any_result_the_next_step_is_told(run, fresh):
    result = run("--lab", fresh.path, "calibrate")
    assert result.exit_code == 0
    assert "No results yet" in result.stderr


def test_a_young_lab_does_not_prune(run, searched):
    result = run("--lab", searched.path, "calibrate")
    assert result.exit_code == 0
    assert "candidates trained to the end" in result.stdout
    assert "not in force: more candidates are needed" in result.stdout


def test_what_is_saved_and_at_what_risk(run, measured):
    said = " ".join(run("--lab", measured.path, "calibrate").stdout.split())
    assert "64 candidates trained to the end; 16 are good" in said
    assert "0 of 16 good ones stopped" in said
    assert "at most 17.1% with 95 %" in said
    assert "Pruning is in force" in said
    report = json.loads(run("--lab", measured.path, "calibrate", "--json").stdout)
    assert report["in_force"] is True
    assert report["calibration"]["good"] == 16
    assert report["calibration"]["kills"] == 0
    assert set(report["calibration"]["limits"]) == {"32", "64"}
    assert report["calibration"]["stopped"] == {"32": sum(report["calibration"]["stopped"].values())}


def test_switched_off_it_says_so(run, measured):
    measured.config.write_text(measured.config.read_text() + "[supervise]\nprune = false\n")
    assert "switched off (supervise.prune" in run("--lab", measured.path, "calibrate").stdout


def test_what_tasks_are_worth(run, searched, fresh):
    shown = run("--lab", searched.path, "calibrate", "--tasks").stdout
    assert "held-out loss" in shown
    assert "asi_recall" in shown
    assert max(map(len, shown.splitlines())) <= 80
    report = json.loads(run("--lab", searched.path, "calibrate", "--tasks", "--json").stdout)
    assert {one["task"] for one in report} == {"held-out loss", "asi_recall", "asi_copy"}
    assert all(one["architectures"] == 3 and one["runs"] >= 6 for one in report)
    empty = run("--lab", fresh.path, "calibrate", "--tasks")
    assert (empty.exit_code, "No results yet" in empty.stderr) == (0, True)
