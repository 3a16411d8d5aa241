"""`asi-lab fetch`: what there is, what is missing with its size, and what a search says then."""

from __future__ import annotations

import os
import subprocess
import sys

import msgspec
import pytest

from asi_lab import engine
from asi_lab.cli import fetch
from asi_lab.data import hub
from asi_lab.lab import Store, choice, fresh
from asi_lab.protocol import TaskData
from tests import simulated_engine

THERE = TaskData("piqa", ("baber/piqa",), 4_000_000)
MISSING = TaskData("boolq", ("aps/super_glue boolq",), None, "ConnectionError: no network")


SETTINGS = "[baselines]\nseeds = 2\nmax_seeds = 2\n[verify]\nrungs = []\n"


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A lab with two benchmarks, of which one cannot be had; its text is prepared."""

    def run_module(module, arguments, tick, environment=None):
        known = {found.task: found for found in (THERE, MISSING)}
        return [msgspec.json.encode(known[name]).decode() for name in arguments[1:]]

    monkeypatch.setattr(choice, "run_module", run_module)
    simulated = simulated_engine.SimulatedExecutor(0.0)
    monkeypatch.setattr(engine.Engine, "_executors", lambda self, settings, places: ([simulated], ()))
    lab = simulated_engine.make_lab(tmp_path, SETTINGS)
    with_tasks(lab, 'tasks = ["asi_recall", "piqa", "boolq"]')
    return lab


def with_tasks(lab, line: str) -> None:
    lines = lab.config.read_text().splitlines()
    lab.config.write_text("\n".join(line if old.startswith("tasks =") else old for old in lines) + "\n")


def test_the_text_of_all_scales_is_fetched(run, lab):
    with_tasks(lab, 'tasks = ["asi_recall"]')
    big = lab.config.read_text().replace("rungs = []", "")
    (lab.path / "big.toml").write_text(big)
    lab.config.write_text(lab.config.read_text().replace("rungs = []", 'rungs = ["big.toml"]'))
    result = run("--lab", lab.path, "fetch")
    assert result.exit_code == 0, result.output
    assert (lab.path / "rungs" / "big" / "data" / "manifest.json").exists()
    assert [" of micro: " in line or " of big: " in line for line in result.stdout.splitlines()] == [
        True,
        True,
    ]


@pytest.mark.parametrize(("size", "shown"), [(56_000_000, "56.0 MB"), (None, "size ?")])
def test_what_is_missing_is_told_with_its_size(run, lab, monkeypatch, size, shown):
    asked = []
    monkeypatch.setattr(hub, "size_of", lambda name: asked.append(name) or size)
    result = run("--lab", lab.path, "fetch", "--check")
    assert result.exit_code == 1
    text, piqa, boolq = result.stdout.splitlines()
    assert text.startswith("there")
    assert text.endswith("byte")
    assert piqa.split() == ["there", "4.0", "MB", "piqa:", "baber/piqa"]
    assert boolq == f"missing  {shown:>10}  boolq: aps/super_glue boolq"
    assert asked == ["aps/super_glue"]
    assert f"asi-lab --lab {lab.path} fetch" in result.stderr.replace("\n", "")
    assert "no network" in run("--lab", lab.path, "fetch").stderr


def test_a_search_refuses_or_goes_on_with_the_rest(run, lab):
    refused = run("--lab", lab.path, "--no-tui", "--experiments", 1)
    assert refused.exit_code == 1
    assert "boolq (aps/super_glue boolq)" in refused.stderr
    assert "asi-lab fetch" in refused.stderr
    with_tasks(lab, 'tasks = ["asi_recall", "piqa", "boolq"]\nmissing = "skip"')
    assert run("--lab", lab.path, "--no-tui", "--experiments", 1).exit_code == 0
    with Store.open_readonly(lab.store) as store:
        measured = [run.evidence.measured for run in store.baselines()] + [store.held(1).evidence.measured]
    assert {tuple(task.task for task in found.tasks) for found in measured} == {("asi_recall", "piqa")}


def test_fresh_runs_are_measured_on_the_tasks_beside_claims_too(run, lab):
    with_tasks(lab, 'tasks = ["asi_recall"]')
    more = '[verify]\ntasks = ["piqa"]\ntune = false\n'
    lab.config.write_text(lab.config.read_text().replace("[verify]\n", more))
    assert run("--lab", lab.path, "--no-tui", "--experiments", 1).exit_code == 0
    result = run("--lab", lab.path, "verify", 1)
    assert result.exit_code == 0, result.output
    with Store.open_readonly(lab.store) as store:
        mine = {tuple(t.task for t in one.evidence.measured.tasks) for one in fresh.runs(store)}
        searched = [task.task for task in store.held(1).evidence.measured.tasks]
    assert (mine, searched) == ({("asi_recall", "piqa")}, ["asi_recall"])


def test_init_fetches_where_it_is_told_to(run, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(fetch, "all_of", lambda lab, download: told.append((lab.path, download)) or False)
    assert run("--lab", tmp_path / "a", "init").exit_code == 0
    assert told == []
    assert run("--lab", tmp_path / "b", "init", "--fetch").exit_code == 1
    assert told == [(tmp_path / "b", True)]


@pytest.mark.slow
def test_without_network_and_cache_the_real_look_says_so_and_copies_are_found(run, tmp_path):
    """No stand-in here: the process that looks, lm-eval's own index, and a folder of copies."""
    assert run("--lab", tmp_path / "lab", "init").exit_code == 0
    config = tmp_path / "lab" / "lab.toml"
    text = config.read_text().replace('tasks = ["asi_perplexity", "asi_last_word"]', 'tasks = ["piqa"]')
    config.write_text(text)
    offline = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    command = [sys.executable, "-m", "asi_lab", "--lab", str(tmp_path / "lab"), "fetch", "--check"]
    looked = subprocess.run(command, env=offline, capture_output=True, text=True)
    assert (looked.returncode, looked.stdout.splitlines()[-1].split()) == (
        1,
        ["missing", "size", "?", "piqa:", "baber/piqa"],
    ), looked.stderr
    folder = tmp_path / "copies" / "baber" / "piqa"
    folder.mkdir(parents=True)
    for split in ("train", "validation"):
        row = '{"goal": "Cut bread", "sol1": "Use a knife.", "sol2": "Use a spoon.", "label": 0}\n'
        (folder / f"{split}.jsonl").write_text(row)
    config.write_text(text.replace('datasets = ""', 'datasets = "../copies"'))
    looked = subprocess.run(command, env=offline, capture_output=True, text=True)
    assert (looked.returncode, looked.stdout.split("\n")[1].split()[0]) == (0, "there"), looked.stderr
