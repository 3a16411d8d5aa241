"""The command race, with simulated trials."""

from __future__ import annotations

import json

import pytest

from asi_lab import engine
from asi_lab.engineer.executor import Executor
from asi_lab.scoring import references
from tests import simulated_engine


@pytest.fixture
def lab(tmp_path, monkeypatch):
    simulated: Executor = simulated_engine.SimulatedExecutor(0.0)
    monkeypatch.setattr(engine.Engine, "_executors", lambda self, settings, places: ([simulated], ()))
    return simulated_engine.make_lab(tmp_path, "")


def test_a_table_of_80_columns(run, lab):
    result = run("--lab", lab.path, "race", "delta_net", "mamba2", "--seeds", 3)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    rows = [line.split() for line in lines]
    assert rows[1] == ["preset", "micro", "runs", *rows[1][3:]]
    (mamba2,) = (row for row in rows if row[:2] == ["mamba2", "3"])
    assert float(mamba2[2]) >= 4.0
    assert mamba2[4].startswith("±")
    assert "asi_recall" in result.stdout
    assert "average" in result.stdout
    assert "baseline mamba2 seed 2: loss" in result.stderr


def test_all_references_fit_into_80_columns(run, lab):
    result = run("--lab", lab.path, "race", "--all", "--seeds", 2)
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in result.stdout
    assert "-0.00%" not in result.stdout
    for name in references.names():
        assert sum(line.startswith(f"{name} ") for line in lines) == 2  # losses, then tasks


def test_json_and_the_eight_by_default(run, lab):
    result = run("--lab", lab.path, "race", "--seeds", 1, "--json")
    found = json.loads(result.stdout)
    assert tuple(lane["architecture"] for lane in found["lanes"]) == references.EIGHT
    assert (found["tuning"], found["own"], found["failed"]) == (None, None, [])
    assert [lane["architecture"] for lane in found["lanes"]][:2] == ["delta_net", "gated_delta_net"]
    assert {"mamba2", "content_sharp_router"} < {lane["architecture"] for lane in found["lanes"]}
    assert found["noise"] == {}
    assert found["lanes"][1]["loss"]["interval"] is None


def test_the_names_of_all_are_listed(run):
    assert run("race", "--list").stdout.split() == references.names()
    assert set(references.EIGHT) <= set(references.names())


def test_names_and_all_exclude_each_other(run, lab):
    assert run("--lab", lab.path, "race", "mamba2", "--all").exit_code == 2


def test_own_best_rates_beside_the_presets(run, lab):
    result = run("--lab", lab.path, "race", "--tune", "--seeds", 2)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in result.stdout
    assert [word for line in lines if line.startswith("tuning ") for word in line.split()][-1] == "best"
    (rates,) = (line.split()[2:] for line in lines if line.startswith("learning rate "))
    assert {"0.006", "0.012", "0.024"} <= set(rates)
    (correlations,) = (line.split()[2:] for line in lines if line.startswith("rank correlation "))
    assert all(-1 <= float(cell) <= 1 for cell in correlations)
    assert "At own best learning rates" in result.stdout
    again = json.loads(run("--lab", lab.path, "race", "--tune", "--seeds", 2, "--json").stdout)
    assert len(again["tuning"]["lanes"]) == len(again["own"]["lanes"]) == len(again["lanes"]) == 8
    assert len(again["tuning"]["rates"]) == len(rates)


def test_a_run_that_fails_is_a_line_and_an_exit_code(run, lab, monkeypatch):
    monkeypatch.setenv("SIMULATED_FAILING", "mamba2-seed0 mamba2-seed1")
    result = run("--lab", lab.path, "race", "delta_net", "mamba2", "--seeds", 2)
    assert result.exit_code == 1
    failed = [line for line in result.stdout.splitlines() if " failed: " in line]
    assert [line.split(" failed: ")[0] for line in failed] == ["mamba2 seed 0", "mamba2 seed 1"]
    assert all("after 3 steps" in line for line in failed)
    assert any(line.startswith("delta_net ") for line in result.stdout.splitlines())
    nobody = run("--lab", lab.path, "race", "mamba2", "--seeds", 2)
    assert (nobody.exit_code, "No run is finished yet" in nobody.stdout) == (1, True)


def test_one_run_of_each_says_that_noise_is_unknown(run, lab):
    result = run("--lab", lab.path, "race", "delta_net", "mamba2", "--seeds", 1)
    assert "ask for more seeds" in " ".join(result.stdout.split())
    assert "*" not in result.stdout


def test_an_unknown_name_is_told_with_the_known_ones(run, lab):
    result = run("--lab", lab.path, "race", "mamba4")
    assert result.exit_code == 2
    assert "mamba4: expected a reference architecture: delta_net, gated_delta_net" in result.stderr


def test_another_preset_than_the_labs_is_refused(run, lab):
    result = run("--lab", lab.path, "race", "mamba2", "--preset", "mini")
    assert result.exit_code == 2
    assert "has preset micro" in result.stderr
