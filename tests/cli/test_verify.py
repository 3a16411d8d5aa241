"""Stage two from the command line, with simulated trials: what holds, tags, kills and bad input."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from asi_lab import engine
from asi_lab.engineer.executor import Executor
from asi_lab.lab import Lineage, Store, fresh
from asi_lab.records import Terms
from asi_lab.scoring import verification
from asi_lab.view import verdicts
from tests import simulated_engine
from tests.cli.conftest import ENGINE

SETTINGS = "[baselines]\nseeds = 2\nmax_seeds = 2\n[verify]\ntune = false\nquota = 3\n"


@pytest.fixture
def lab(tmp_path, monkeypatch, run):
    """A lab of five candidates: the second failed, the fourth is the best."""
    simulated: Executor = simulated_engine.SimulatedExecutor(0.0)
    monkeypatch.setattr(engine.Engine, "_executors", lambda self, settings, places: ([simulated], ()))
    lab = simulated_engine.make_lab(tmp_path, SETTINGS, seed=3)
    assert run("--lab", lab.path, "--no-tui", "--experiments", 5).exit_code == 0
    return lab


def scored(lab) -> list[int]:
    with Store.open_readonly(lab.store) as store:
        return [summary.id for summary in store.summaries() if summary.id and summary.loss is not None]


def found(run, lab):
    return json.loads(run("--lab", lab.path, "verdicts", "--json").stdout)


def test_what_is_better_holds_and_is_tagged(run, lab, monkeypatch):
    better, other = scored(lab)[:2]
    monkeypatch.setenv("SIMULATED_BETTER", f"{better:04d}-fresh")
    result = run("--lab", lab.path, "verify", other, better)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("1 hold (false-discovery rate of the procedure at most 5%), 0 open, 1 not")
    assert lines[1].split(":")[0] == "bar"
    assert "24 of 24 fresh runs" in lines[1]
    claims = {claim["promotion"]["candidate"]: claim for claim in found(run, lab)["claims"]}
    assert [claims[number]["verdict"] for number in (other, better)] == ["not shown", "holds"]
    assert claims[better]["runs"] == 12
    assert claims[better]["tagged"]
    with Store.open_readonly(lab.store) as store:
        sha = store.held(better).sha
        assert not fresh.runs(store)[0].is_tuning
    git = ["git", "-C", lab.lineage, "cat-file", "-p", f"verified/{better:04d}"]
    told = subprocess.run(git, capture_output=True, text=True, check=True).stdout
    assert told.startswith(f"object {sha}\ntype commit\n")
    assert "nats of held-out loss under the mean of " in told
    assert "12 fresh runs against 24 of " in told
    assert "at a false-discovery rate of 5%" in told
    assert f"verified/{other:04d}" not in Lineage.open(lab.lineage).refs()
    shown = run("--lab", lab.path, "show", better).stdout
    assert "verdict" in shown
    assert "holds: 12 fresh runs" in " ".join(shown.split())
    assert max(map(len, shown.splitlines())) <= 80
    figures = [line.split() for line in shown.splitlines() if line.startswith("  asi_")]
    assert [row[0] for row in figures[:2]] == ["asi_recall", "asi_copy"]
    assert figures[0][-2] == "to"
    assert "claims" in run("--lab", lab.path, "status").stdout
    top = run("--lab", lab.path, "top").stdout
    assert max(map(len, top.splitlines())) <= 80
    rows = {line.split()[1]: line for line in top.splitlines() if line[:4].strip().isdigit()}
    assert "holds" in rows[f"{better:04d}"]
    assert "not shown" in rows[f"{other:04d}"]
    assert all("not tried" in line for number, line in rows.items() if int(number) not in (better, other))


def test_a_second_call_makes_no_run_again_and_remakes_a_tag_that_was_lost(run, lab, monkeypatch):
    better = scored(lab)[0]
    monkeypatch.setenv("SIMULATED_BETTER", f"{better:04d}-fresh")
    run("--lab", lab.path, "verify", better)
    before = found(run, lab)
    with Store.open_readonly(lab.store) as store:
        made = len(fresh.runs(store))
    subprocess.run(["git", "-C", lab.lineage, "tag", "-d", f"verified/{better:04d}"], check=True)
    again = run("--lab", lab.path, "verify", better)
    assert again.exit_code == 0
    assert f"refs/tags/verified/{better:04d}" in Lineage.open(lab.lineage).refs()
    assert found(run, lab) == before
    with Store.open_readonly(lab.store) as store:
        assert len(fresh.runs(store)) == made
        assert [promotion.number for promotion in fresh.promotions(store)] == [1]


def test_without_an_id_the_most_promising_are_promoted(run, lab):
    with Store.open_readonly(lab.store) as store:
        expected = verification.promotable(lab.settings(), store)[:3]
        losses = {summary.id: summary.loss for summary in store.summaries()}
        assert expected
        assert all(losses[number] < losses[0] for number in expected)
    assert run("--lab", lab.path, "verify").exit_code == 0
    with Store.open_readonly(lab.store) as store:
        assert [promotion.candidate for promotion in fresh.promotions(store)] == expected


def test_a_candidate_that_fails_and_one_the_machine_cut_off(run, lab, monkeypatch):
    first, second = scored(lab)[:2]
    monkeypatch.setenv("SIMULATED_FAILING", f"{first:04d}-fresh0")
    monkeypatch.setenv("SIMULATED_KILLED", f"{second:04d}-fresh0")
    result = run("--lab", lab.path, "verify", first, second)
    assert result.exit_code == 0, result.output
    claims = {claim["promotion"]["candidate"]: claim for claim in found(run, lab)["claims"]}
    assert claims[first]["failed"] in ("diverged", "leaking")
    assert claims[first]["verdict"] == "not shown"
    assert claims[second]["verdict"] == "open"
    monkeypatch.delenv("SIMULATED_KILLED")
    run("--lab", lab.path, "verify")
    claims = {claim["promotion"]["candidate"]: claim for claim in found(run, lab)["claims"]}
    assert claims[second]["verdict"] == "not shown"
    assert claims[second]["failed"] is None


def test_a_run_that_is_cut_off_again_and_again_has_failed(run, lab, monkeypatch):
    first, second = scored(lab)[:2]
    monkeypatch.setenv("SIMULATED_KILLED", f"{first:04d}-fresh1")
    for _ in range(lab.settings().search.max_starts):
        run("--lab", lab.path, "verify", first, second)
    claims = {claim["promotion"]["candidate"]: claim for claim in found(run, lab)["claims"]}
    assert (claims[first]["verdict"], claims[first]["failed"]) == ("not shown", "interrupted")
    assert claims[second]["verdict"] == "not shown"


def test_after_a_race_alone_nothing_can_be_verified(run, tmp_path, monkeypatch):
    simulated: Executor = simulated_engine.SimulatedExecutor(0.0)
    monkeypatch.setattr(engine.Engine, "_executors", lambda self, settings, places: ([simulated], ()))
    lab = simulated_engine.make_lab(tmp_path, SETTINGS)
    run("--lab", lab.path, "race", "delta_net", "gated_delta_net", "mamba2", "--seeds", 3)
    result = run("--lab", lab.path, "verify")
    assert result.exit_code == 2
    assert "Start the search first" in result.stderr


def test_a_damaged_run_is_told(run, lab):
    number = scored(lab)[0]
    run("--lab", lab.path, "verify", number)
    with Store.open(lab.store) as store:
        key, value = next(iter(store.metas(fresh.RUNS).items()))
        store.put_meta(key, value | {"evidence": {}})
    result = run("--lab", lab.path, "verdicts")
    assert result.exit_code == 1
    assert "has no loss" in result.stderr


@pytest.mark.parametrize("number", [0, 99])
def test_who_has_no_score_cannot_be_promoted(run, lab, number):
    result = run("--lab", lab.path, "verify", number)
    assert result.exit_code == 2
    assert str(number) in result.stderr
    assert "Traceback" not in result.output


def test_a_lab_that_was_never_searched(run, tmp_path, monkeypatch):
    simulated: Executor = simulated_engine.SimulatedExecutor(0.0)
    monkeypatch.setattr(engine.Engine, "_executors", lambda self, settings, places: ([simulated], ()))
    lab = simulated_engine.make_lab(tmp_path, SETTINGS)
    assert "No results yet" in run("--lab", lab.path, "verdicts").stderr
    result = run("--lab", lab.path, "verify")
    assert result.exit_code == 2
    assert "Start the search first" in result.stderr


def test_killed_at_any_moment_verdicts_are_those_of_an_undisturbed_run(run, lab, tmp_path):
    """The same lab, verified at once, and by engines that are killed again and again."""
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", lab.path, copy], check=True)
    with Store.open_readonly(lab.store) as store:
        better = f"{verification.promotable(lab.settings(), store)[0]:04d}-fresh"
    environment = {**os.environ, "SIMULATED_BETTER": better}
    undisturbed = [sys.executable, str(ENGINE), str(lab.path), "verify", "0"]
    subprocess.run(undisturbed, check=True, env=environment, capture_output=True)
    rng, kills, made = random.Random(1), 0, 0
    while True:
        command = [sys.executable, str(ENGINE), str(copy), "verify", "0.002"]
        process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        wanted = made + rng.randrange(1, 12)
        while process.poll() is None and made < wanted:
            time.sleep(0.02 * rng.random())
            with Store.open_readonly(copy / "store") as store:
                made = len(fresh.runs(store))
        if process.poll() is not None:
            assert process.returncode == 0
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
    assert kills >= 3
    run_again = [json.loads(run("--lab", path, "verdicts", "--json").stdout) for path in (lab.path, copy)]
    for one in run_again:
        for claim in one["claims"]:
            claim["promotion"].pop("time")
    assert run_again[0] == run_again[1]
    with Store.open_readonly(copy / "store") as store:
        ended = [run.run for run in fresh.runs(store)]
    assert len(ended) == len(set(ended))
    refs = [Lineage.open(path / "lineage_repo").refs("refs/tags/") for path in (lab.path, copy)]
    assert refs[0] == refs[1] != {}


def test_hours_are_planned_for_the_search_and_for_claims(run, lab):
    told = run("--lab", lab.path, "estimate", "--hours", 1).stdout
    assert max(map(len, told.splitlines())) <= 80
    plan = json.loads(run("--lab", lab.path, "estimate", "--hours", 1, "--json").stdout)["plan"]
    assert plan["first"] == 24
    assert plan["claims"] == int((plan["candidates"] - 24) / plan["runs"])
    assert plan["candidates"] == int(3600 / plan["seconds"])
    power = [plan["power"][gain] for gain in ("1", "1.5", "2", "3")]
    assert power == sorted(power)
    run("--lab", lab.path, "verify", scored(lab)[0])
    assert json.loads(run("--lab", lab.path, "estimate", "--hours", 1, "--json").stdout)["plan"]["first"] == 0


def test_hours_cannot_be_planned_before_anything_was_measured(run, tmp_path):
    lab = simulated_engine.make_lab(tmp_path, SETTINGS)
    result = run("--lab", lab.path, "estimate", "--hours", 1)
    assert result.exit_code == 0
    assert "unknown before the lab's first candidates are measured" in result.stdout


def test_terms_are_those_of_the_first_promotion(run, lab):
    number = scored(lab)[0]
    run("--lab", lab.path, "verify", number)
    before = found(run, lab)
    terms = {"bar": before["terms"]["bar"], "bar_runs": 24, "tune": False, "freedom": 3.5}
    assert before["terms"] == terms
    text = lab.config.read_text()
    lab.config.write_text(text.replace("tune = false", "tune = true") + "bar_runs = 48\n")
    result = run("--lab", lab.path, "verify", number)
    assert "they go on under those of the first promotion" in result.stderr
    assert found(run, lab) == before


def test_an_empty_table():
    empty = verification.assess(Terms("mamba2", 24, True, 3.5), (), (), str)
    assert verdicts.headline(empty).startswith("0 hold")
