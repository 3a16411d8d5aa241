"""Searches with controls, through a real engine: arms kept apart, the same whoever ends first, and told."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from asi_lab.engine import Engine
from asi_lab.lab import Lab, Lineage, Store, fsck, meta
from asi_lab.lab.commits import candidate_commit
from asi_lab.records import Arm
from asi_lab.researcher import arms
from asi_lab.scoring import references
from tests import simulated_engine

CONTROLS = ("best_of_n", "sequential")


def controlled_lab(folder: Path, delay: float = 0.0) -> Lab:
    """A lab that was searched with both controls; every second trial takes `delay` longer."""
    more = f"[search]\nslots = 2\ncontrols = {list(CONTROLS)}\ncontrol_share = 0.3\n"
    more += "[baselines]\nseeds = 2\nmax_seeds = 2\n"
    lab = simulated_engine.make_lab(folder, more, seed=3)
    Engine(lab, simulated_engine.Silent(), Uneven(delay)).search(20, None)
    return lab


class Uneven(simulated_engine.SimulatedExecutor):
    """Every second trial is slow."""

    slow = False

    def take(self) -> simulated_engine.SimulatedTrio:
        self.slow = not self.slow
        return simulated_engine.SimulatedTrio(self.delay if self.slow else 0.0)


@pytest.fixture(scope="module")
def controlled(tmp_path_factory) -> Lab:
    return controlled_lab(tmp_path_factory.mktemp("controlled"))


def test_a_search_with_controls_keeps_its_arms_apart(controlled):
    lab = controlled
    settings = lab.settings()
    with Store.open_readonly(lab.store) as store:
        candidates = list(store.candidates(1))
        assert meta.CONFIG.read(store)
    by_id = {c.id: c for c in candidates}
    found = Counter(c.arm for c in candidates)
    assert set(found) == {*Arm} - {Arm.GRAMMAR}
    for c in candidates:
        assert c.arm is arms.arm_of(c.id, settings)
        drawn = {c.draw.parent, *c.draw.references} - {0}
        assert all(by_id[number].arm is c.arm for number in drawn), c.id
        assert all(by_id[near.id].arm is c.arm for near in c.proposal.nearest if near.id), c.id
    assert {c.draw.parent for c in candidates if c.arm is Arm.BEST_OF_N} == {0}
    climbed = [c.draw.parent for c in candidates if c.arm is Arm.SEQUENTIAL]
    assert climbed[0] == 0
    assert any(climbed)


def test_controls_do_not_depend_on_who_ends_first(controlled, tmp_path):
    other = controlled_lab(tmp_path, 0.02)
    assert Lineage.open(other.lineage).refs() == Lineage.open(controlled.lineage).refs()


def test_commits_of_controls_name_their_arm(controlled):
    with Store.open_readonly(controlled.store) as store:
        assert fsck.check(store, controlled.lineage, meta.CONFIG.read(store), [references.upper()]) == []
        candidates = list(store.candidates(1))
    for c in candidates:
        commit = candidate_commit(c, "", "0" * 40)
        drawn = json.loads(commit.files["metrics.json"])["draw"]
        is_apart = c.arm is not Arm.EVOLUTION
        assert (f"\nArm: {c.arm}\n" in commit.message) == is_apart
        assert drawn.get("arm") == (c.arm.value if is_apart else None)


def test_each_arm_is_compared_with_evolution(controlled, run):
    top = run("top", "--lab", controlled.path)
    assert all(len(line) <= 80 for line in top.stdout.splitlines()), top.stdout
    assert "What the search adds" in top.stdout
    told = json.loads(run("top", "--lab", controlled.path, "--json").stdout)
    assert [row["arm"] for row in told["arms"]] == ["evolution", *CONTROLS]
    assert sum(row["ended"] for row in told["arms"]) == 20
    assert {row["arm"] for row in told["candidates"]} <= {"evolution", *CONTROLS}
    status = run("status", "--lab", controlled.path, "--once").stdout
    assert f"ended: {told['arms'][0]['ended']} evolution, " in status
    with Store.open_readonly(controlled.store) as store:
        sequential = next(c for c in store.candidates(1) if c.arm is Arm.SEQUENTIAL)
    page = run("show", sequential.id, "--lab", controlled.path).stdout
    assert "sequential: proposed from the best so far of its arm" in page
    assert "pool generation" not in page
