"""What status, top, show, diff and log print, for people and as JSON."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time

import msgspec
import pytest

from asi_lab.lab import Store
from asi_lab.protocol import Progress
from asi_lab.records import CandidateState

ESCAPE = re.compile(r"\x1b|\x9b|\x07")


def test_top_ranks_by_fitness_beside_the_baselines(run, searched, candidates):
    found = json.loads(run("--lab", searched.path, "top", "-n", "100", "--json").stdout)
    done = [c for c in candidates(searched) if c.state is CandidateState.DONE and c.id > 0]
    expected = sorted(done, key=lambda c: -c.score.merit)
    assert [row["id"] for row in found["candidates"]] == [c.id for c in expected]
    assert [row["rank"] for row in found["candidates"]] == list(range(1, len(done) + 1))
    names = ["mamba2", "delta_net", "gated_delta_net"]
    assert [row["name"] for row in found["baselines"]] == names == [found["bar"], *names[1:]]
    assert found["baselines"][0]["runs"] == 2
    assert found["scored"] == len(done)
    assert found["expected_by_luck"] == pytest.approx(0.05 * len(done))
    for row in found["candidates"]:
        mean = found["baselines"][0]["loss"]
        assert row["gain"] == pytest.approx((mean - row["loss"]) / mean)
        assert row["beats_bar"] == (mean - row["loss"] > found["margins"][found["bar"]])
        assert row["gain_in_noise"] * row["gain"] >= 0
        assert set(row["beats"]) <= set(names)
    for name in names:
        assert found["beating"][name] == sum(name in row["beats"] for row in found["candidates"])


def test_top_shows_as_many_rows_as_asked_for(run, searched):
    assert len(json.loads(run("--lab", searched.path, "top", "-n", "2", "--json").stdout)["candidates"]) == 2
    shown = run("--lab", searched.path, "top", "-n", "2").stdout
    assert re.search(r"^ *2 \d{4} ", shown, re.MULTILINE)
    assert not re.search(r"^ *3 \d{4} ", shown, re.MULTILINE)


@pytest.mark.parametrize("width", [40, 60, 80, 160])
def test_tables_fit_the_terminal(run, searched, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    for command in (["top"], ["status"], ["show", "best"]):
        lines = run("--lab", searched.path, *command).stdout.splitlines()
        assert max(map(len, lines)) <= width
    heading = run("--lab", searched.path, "top").stdout.splitlines()[0]
    assert "fitness" in heading
    assert ("benchmark" in heading) == (width >= 80)


def test_status_counts_and_names_the_best(run, searched, candidates):
    found = json.loads(run("--lab", searched.path, "status", "--json").stdout)
    assert found["lab"] == str(searched.path)
    assert (found["preset"], found["seed"]) == ("micro", 1)
    assert found["engine"]["state"] == "stopped"
    assert found["doing"] is None
    assert found["finished"] == sum(found["states"].values()) == 8
    assert found["pace"]["of"] == 8
    best = max((c for c in candidates(searched) if c.id and c.score), key=lambda c: c.score.fitness)
    assert [row["id"] for row in found["board"]["candidates"]] == [best.id]
    assert found["events"][-1]["kind"] == "engine_stopped"
    shown = run("--lab", searched.path, "status", "--once").stdout
    assert re.search(r"engine +stopped", shown)
    assert re.search(rf"best +{best.id:04d}", shown)


def test_status_reports_an_engine_that_vanished(run, copied):
    dead = subprocess.Popen(["true"])
    dead.wait()
    with Store.open(copied.store) as store:
        store.put_meta("engine", {"pid": dead.pid, "time": time.time() - 30, "state": "running"})
    assert re.search(r"lost contact 0:3\d", run("--lab", copied.path, "status").stdout)


def test_status_takes_an_old_heartbeat_for_lost_though_the_process_lives(run, copied):
    with Store.open(copied.store) as store:
        store.put_meta("engine", {"pid": os.getpid(), "time": time.time() - 100, "state": "running"})
    found = json.loads(run("--lab", copied.path, "status", "--json").stdout)
    assert found["engine"]["state"] == "lost contact"


def test_status_shows_progress_with_its_basis(run, copied):
    progress = msgspec.to_builtins(Progress(30, 90, 3000, 3.25, 1e-3, 100.0, 0.0))
    beat = {"pid": os.getpid(), "time": time.time(), "state": "running", "stage": "training"}
    with Store.open(copied.store) as store:
        store.put_meta("engine", {**beat, "label": "delta_net-seed7", "progress": progress})
    found = json.loads(run("--lab", copied.path, "status", "--json").stdout)["doing"]
    assert (found["label"], found["step"], found["steps"]) == ("delta_net-seed7", 30, 90)
    assert found["left"] == pytest.approx(60.0)  # 6000 tokens at 100 a second
    assert "speed" in found["basis"]
    assert "step 30 of 90, loss 3.2500" in run("--lab", copied.path, "status").stdout


def test_status_shows_all_trials_at_work(run, copied):
    progress = msgspec.to_builtins(Progress(30, 90, 3000, 3.25, 1e-3, 100.0, 0.0))
    beat = {"pid": os.getpid(), "time": time.time(), "state": "running", "slots": 2}
    first = {"label": "delta_net-seed7", "stage": "training", "progress": progress}
    with Store.open(copied.store) as store:
        store.put_meta("engine", {**beat, **first, "beside": [{"label": "0003", "stage": "evaluation"}]})
    found = json.loads(run("--lab", copied.path, "status", "--json").stdout)
    assert found["doing"]["label"] == "delta_net-seed7"
    assert [one["label"] for one in found["beside"]] == ["0003"]
    shown = run("--lab", copied.path, "status").stdout
    lines = r"now +delta_net-seed7  training *\n +step 30 of 90, .*; about 1:00 left *\n +0003 "
    assert re.search(lines, shown)
    assert "evaluation; about" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_show_takes_an_id_with_and_without_zeros(run, searched):
    assert (
        run("--lab", searched.path, "show", "3").stdout == run("--lab", searched.path, "show", "0003").stdout
    )


def test_show_prints_a_scored_candidate_whole(run, searched, candidates):
    best = max((c for c in candidates(searched) if c.id and c.score), key=lambda c: c.score.fitness)
    shown = run("--lab", searched.path, "show", best.id).stdout
    for word in (best.name, best.commit, "Motivation", "Checks", "Training", "chance", "Judge", "Ablation"):
        assert word in shown
    assert f"{best.score.fitness:.4f} ±" in shown
    top = json.loads(run("--lab", searched.path, "top", "--json").stdout)["candidates"][0]["pool"]
    words = f"value {top['mean']:.4f} ±{top['sd']:.4f} given its relatives"
    assert f"{words} (one run {best.score.fitness:.4f})" in " ".join(shown.split())
    assert "class DeltaNet" not in shown
    assert best.proposal.code.rstrip() in run("--lab", searched.path, "show", best.id, "--code").stdout


def test_show_has_the_accuracy_below_the_score(run, copied, candidates):
    done = next(candidate for candidate in candidates(copied) if candidate.id and candidate.score)
    first, *others = done.evidence.evaluation.tasks
    first = msgspec.structs.replace(first, metrics={"acc": 0.4375, "acc_norm": 0.25})
    evaluation = msgspec.structs.replace(done.evidence.evaluation, tasks=(first, *others))
    evidence = msgspec.structs.replace(done.evidence, evaluation=evaluation)
    with Store.open(copied.store) as store:
        store.put(msgspec.structs.replace(done, evidence=evidence))
    lines = [line.split() for line in run("--lab", copied.path, "show", done.id).stdout.splitlines()]
    (place,) = (at for at, words in enumerate(lines) if words[:1] == ["accuracy"])
    assert lines[place][1:] == ["0.4375", "-", "-", "0.2500", "in", "no", "score"]
    assert first.task in [words[0] for words in lines[:place] if words]


def test_show_prints_why_a_candidate_failed(run, searched, candidates):
    failed = next(c for c in candidates(searched) if c.state.is_failure)
    shown = run("--lab", searched.path, "show", failed.id).stdout
    assert f"Failed: {failed.state.value}" in shown
    assert re.search(
        rf"{failed.state.value} after \d steps", shown
    )  # not its words: it had seen held-out text


def test_show_json_is_the_record(run, searched, candidates):
    record = msgspec.to_builtins(candidates(searched)[3])
    with_code = json.loads(run("--lab", searched.path, "show", "3", "--json", "--code").stdout)
    assert with_code == json.loads(json.dumps(record))
    del record["proposal"]["code"]
    assert json.loads(run("--lab", searched.path, "show", "3", "--json").stdout) == json.loads(
        json.dumps(record)
    )


@pytest.mark.parametrize("which", ["99", "-1", "x", "1.5", "9" * 40, "²"])
def test_an_unknown_candidate_is_a_usage_error(run, searched, which):
    result = run("--lab", searched.path, "show", "--", which)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "expected a candidate" in result.stderr


def test_diff_against_the_parent_is_the_default(run, searched, candidates):
    child = candidates(searched)[-1]
    alone = run("--lab", searched.path, "diff", child.id)
    assert alone.exit_code == 0
    assert alone.stdout == run("--lab", searched.path, "diff", child.parent, child.id).stdout
    assert alone.stdout.startswith("diff --git a/architecture.py b/architecture.py\n")
    assert "\n+" in alone.stdout
    assert not ESCAPE.search(alone.stdout)


def test_diff_of_the_seed_needs_a_second_candidate(run, searched):
    assert run("--lab", searched.path, "diff", "0").exit_code == 2
    assert run("--lab", searched.path, "diff", "0", "1").exit_code == 0


def test_diff_of_an_uncommitted_candidate_points_to_its_code(run, copied):
    with Store.open(copied.store) as store:
        store.put(msgspec.structs.replace(store.get(2), commit=None, state=CandidateState.TRAINING))
    result = run("--lab", copied.path, "diff", "2")
    assert result.exit_code == 2
    assert "show 2 --code" in result.stderr


def test_log_is_git(program, searched, candidates):
    graph = program("--lab", searched.path, "log")
    assert graph.returncode == 0
    for candidate in candidates(searched):
        if candidate.state is CandidateState.DONE and candidate.id:
            assert f"arch/{candidate.id:04d}-" in graph.stdout
    subjects = program("--lab", searched.path, "log", "--branches", "--format=%s", "-n", "2").stdout
    assert len(subjects.splitlines()) == 2
    assert program("--lab", searched.path, "log", "--nonsense").returncode == 1
