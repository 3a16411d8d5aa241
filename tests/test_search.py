"""Whole searches through the command line, with real trials on a very small model."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import psutil
import pytest

from asi_lab.errors import StoreError
from asi_lab.lab import Lab, Lineage, Store, fsck
from asi_lab.scoring import references

EXPERIMENTS = 3
LAB = """preset = "micro"
[search]
slots = 1
max_starts = 1000
[data]
source = "text:{text}"
tokenizer = "byte"
[model]
layers = 1
width = 16
[train]
steps = 6
batch = 4
micro_batch = 4
context = 64
warmup_steps = 1
[evaluate]
probes = []
tasks = ["asi_recall", "asi_last_word"]
limit = 8
batch = 8
loss_tokens = 1024
max_length = 256
prefix_checks = 4
[baselines]
references = ["delta_net", "gated_delta_net"]
bar = ""
seeds = 2
max_seeds = 2
"""

pytestmark = pytest.mark.timeout(1500)


def make_lab(folder: Path) -> Lab:
    rng = random.Random(0)
    words = [f"{a}{b}" for a in ("lin", "del", "gat", "rec") for b in ("ear", "ta", "ed", "all", "ur")]
    sentences = [" ".join(rng.choice(words) for _ in range(12)) + "." for _ in range(2000)]
    text = folder / "text.txt"
    text.write_text("\n\n".join(" ".join(sentences[i : i + 25]) for i in range(0, 2000, 25)))
    lab = Lab(folder / "lab")
    lab.path.mkdir()
    lab.config.write_text(LAB.format(text=text))
    return lab


def start(lab: Lab, experiments: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "asi_lab", "--lab", str(lab.path)]
    return subprocess.Popen(
        [*command, "--no-tui", "--experiments", str(experiments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def results(lab: Lab) -> list[tuple]:
    with Store.open_readonly(lab.store) as store:
        return [
            (
                c.id,
                c.state,
                c.draw,
                c.proposal,
                c.evidence and c.evidence.training and c.evidence.training.train_loss,
                c.loss,
                [msgspec.structs.replace(task, seconds=0.0) for task in c.measured.tasks]
                if c.evidence and c.evidence.evaluation
                else None,
                c.score and c.score.fitness,
            )
            for c in store.candidates()
        ]


@pytest.fixture(scope="module")
def searched(tmp_path_factory) -> tuple[Lab, str, str]:
    lab = make_lab(tmp_path_factory.mktemp("searched"))
    engine = start(lab, EXPERIMENTS)
    out, err = engine.communicate(timeout=800)
    assert engine.returncode == 0, err
    return lab, out, err


def test_a_search_goes_from_nothing_to_a_lineage(searched):
    lab, out, err = searched
    found = results(lab)
    assert [row[0] for row in found] == list(range(EXPERIMENTS + 1))
    assert all(row[1].is_terminal for row in found)
    assert "baseline delta_net seed 1" in err
    assert "git -C" in out
    with Store.open(lab.store) as store:
        assert fsck.check(store, lab.lineage, store.get_meta("config"), [references.upper()]) == []


def test_the_lineage_reads_with_plain_git(searched):
    lab = searched[0]

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(lab.lineage), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    scores = git("log", "--branches", "--format=%s|%(trailers:key=Fitness,valueonly,separator=%x2C)")
    scored = {line.split("|")[0]: line.split("|")[1] for line in scores.splitlines()}
    with Store.open_readonly(lab.store) as store:
        done = [c for c in store.candidates() if c.score is not None and c.id > 0]
    for candidate in done:
        ((_, value),) = [(k, v) for k, v in scored.items() if k.startswith(candidate.name[:40])]
        assert float(value.split()[0]) == pytest.approx(candidate.score.fitness, abs=1e-4)
        metrics = json.loads(git("show", f"{candidate.commit}:metrics.json"))
        assert metrics["evidence"]["evaluation"]["loss"] == candidate.loss
        assert git("show", f"{candidate.commit}:architecture.py") == candidate.proposal.code
        assert candidate.analysis.summary in git("show", f"{candidate.commit}:analysis.md")


@pytest.mark.slow
def test_beside_a_busy_neighbour_a_real_search_gives_the_same_commits(searched, tmp_path):
    """Every core is wanted by two others: the same fitness, draws and commit ids, at another speed."""
    quiet, lab = searched[0], Lab(tmp_path / "lab")
    lab.path.mkdir()
    lab.config.write_text(quiet.config.read_text())
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * os.cpu_count())]
    try:
        _, err = (engine := start(lab, EXPERIMENTS)).communicate(timeout=1400)
    finally:
        for neighbour in busy:
            neighbour.kill()
            neighbour.wait()
    assert engine.returncode == 0, err
    assert results(lab) == results(quiet)
    assert Lineage.open(lab.lineage).refs() == Lineage.open(quiet.lineage).refs()
    with Store.open_readonly(lab.store) as store, Store.open_readonly(quiet.store) as other:
        speeds = [[c.evidence.training.tokens_per_second for c in s.candidates()] for s in (store, other)]
        counts = [[c.evidence.work for c in s.candidates()] for s in (store, other)]
    assert speeds[0] != speeds[1]
    assert counts[0] == counts[1]
    assert all(work.operations > 0 and work.bytes > 0 for work in counts[0])


@pytest.mark.slow
def test_killed_twenty_times_a_real_search_ends_the_same(searched, tmp_path):
    """SIGKILL at random moments: in training, scoring, committing. Same weights, same scores in the end."""
    lab = make_lab(tmp_path)
    rng = random.Random(1)
    for _ in range(20):
        engine = start(lab, EXPERIMENTS)
        time.sleep(rng.uniform(1.0, 12.0))
        engine.send_signal(signal.SIGKILL)
        engine.communicate(timeout=60)
    engine = start(lab, EXPERIMENTS)
    _, err = engine.communicate(timeout=800)
    assert engine.returncode == 0, err
    assert results(lab) == results(searched[0])
    with Store.open(lab.store) as store:
        assert fsck.check(store, lab.lineage, store.get_meta("config"), [references.upper()]) == []


@pytest.mark.slow
def test_two_real_trials_at_the_same_time_and_killed_together(tmp_path):
    """SIGKILL while two trials run: both go on, no process stays, and the results are the same in the end."""
    (tmp_path / "other").mkdir()
    undisturbed, lab = make_lab(tmp_path), make_lab(tmp_path / "other")
    for one in (undisturbed, lab):
        one.config.write_text(one.config.read_text().replace("[search]", "[search]\nslots = 2"))
    engine = start(undisturbed, 4)
    _, err = engine.communicate(timeout=800)
    assert engine.returncode == 0, err
    assert "2 trials at the same time" in err

    kills = 0
    while kills < 2:
        engine = start(lab, 4)
        deadline = time.monotonic() + 200
        while engine.poll() is None and len(_unfinished(lab)) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(kills + 1.0)
        children = psutil.Process(engine.pid).children(recursive=True)
        engine.send_signal(signal.SIGKILL)
        engine.communicate(timeout=60)
        assert psutil.wait_procs(children, timeout=10)[1] == []
        kills += 1
    assert len(_unfinished(lab)) in (1, 2)
    engine = start(lab, 4)
    _, err = engine.communicate(timeout=800)
    assert engine.returncode == 0, err
    assert results(lab) == results(undisturbed)
    with Store.open(lab.store) as store:
        assert fsck.check(store, lab.lineage, store.get_meta("config"), [references.upper()]) == []


def _unfinished(lab: Lab) -> list[int]:
    if not lab.has_results():
        return []
    with contextlib.suppress(StoreError), Store.open_readonly(lab.store) as store:
        return [candidate.id for candidate in store.unfinished()]
    return []
