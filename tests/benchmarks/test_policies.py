"""Policies compared: the surrogate's worlds, the draws of each policy, and the record of a real lab."""

from __future__ import annotations

import msgspec
import numpy as np
import policies
import pytest
from policies import GRAMMAR, Made, Surrogate, World, searched

from asi_lab.engine import Engine
from asi_lab.records import Arm
from tests import simulated_engine

KNOWN = Surrogate(-0.01, 0.04, 0.6, 0.4, 0.02, 0.02, 0.05)
CLIMBING = msgspec.structs.replace(KNOWN, drift=0.05, sd=1e-6, noise=1e-6, told=1e-6, fails=0.0, leap=0.0)


def test_the_surrogate_is_fitted_to_what_is_recorded(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = policies.fitted()
    assert found.noise == found.told == pytest.approx(0.02, abs=0.01)  # docs/benchmarks.md, noise and wins
    assert 0.02 < found.sd < 0.06
    assert abs(found.drift) < 0.02
    assert 0.3 < found.leap < 0.6
    assert 0 < found.fails < 0.1


def test_a_child_gains_what_its_truth_says():
    world, changed = World(KNOWN, 0, 4000), msgspec.structs.replace
    parent = Made(0.7, 0.4)
    gains = np.array([world.child(parent, n).gain for n in range(4000)]) - parent.gain
    assert gains.mean() == pytest.approx(KNOWN.drift, abs=0.002)
    assert gains.std() == pytest.approx(KNOWN.sd, rel=0.05)
    leapt = [world.child(Made(), n).leapt for n in range(4000)]
    assert np.mean(leapt) == pytest.approx(KNOWN.leaps * KNOWN.leap, abs=0.015)
    pulled = World(changed(KNOWN, pull=0.5), 0, 4000)
    assert np.mean([pulled.child(parent, n).gain for n in range(4000)]) == pytest.approx(0.54, abs=0.002)
    orphan = World(changed(KNOWN, inherits=False), 0, 9)
    assert orphan.child(parent, 3) == orphan.child(Made(0.4, 0.4), 3)


def test_genes_have_one_value_whoever_mutated_to_them():
    world = World(msgspec.structs.replace(KNOWN, interacts=True, leaps=0.0), 1, 300)
    assert world._value(Made().genes) == 0.0
    steps = [world.child(Made(), n).gain for n in range(300)]
    assert {round(step, 9) for step in steps} != {0.0}
    assert len({round(step, 9) for step in steps}) <= policies.GENES * (policies.FORMS - 1) + 1


def test_policies_draw_as_their_names_say():
    """Where every mutation gains the same, gain counts the mutations on the way."""
    (best,) = searched(Arm.BEST_OF_N, CLIMBING, 0, [40])
    assert best.mean == pytest.approx(-0.05, abs=1e-4)
    (sequential,) = searched(Arm.SEQUENTIAL, CLIMBING, 0, [40])
    assert sequential.chosen == pytest.approx(-0.05 * 14, abs=0.06)  # one more step every third candidate
    (walks,) = searched(GRAMMAR, CLIMBING, 0, [40])
    assert walks.chosen == pytest.approx(-0.05 * policies.WALK, abs=1e-3)
    (evolution,) = searched(Arm.EVOLUTION, CLIMBING, 0, [40])
    assert sequential.chosen <= evolution.chosen < best.chosen
    assert searched(Arm.EVOLUTION, KNOWN, 3, [20]) == searched(Arm.EVOLUTION, KNOWN, 3, [20])


def test_an_interval_is_students_over_labs():
    assert policies.interval([0.1, 0.2, 0.3]) == "+0.200 (-0.048 to +0.448)"
    assert policies.interval([0.1]) == "+0.100"


def test_a_real_lab_is_recorded_once_it_has_ended(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(policies, "RESULTS", tmp_path / "policies.jsonl")
    more = "[search]\ncontrols = ['best_of_n', 'sequential']\ncontrol_share = 0.3\n"
    lab = simulated_engine.make_lab(tmp_path, more + "[baselines]\nseeds = 2\nmax_seeds = 2\n", seed=3)
    Engine(lab, simulated_engine.Silent(), simulated_engine.SimulatedExecutor(0.0)).search(12, None)
    with pytest.raises(SystemExit, match="1 of 13 candidates have not ended"):
        policies.outcome(lab, 13)
    found = policies.outcome(lab, 12)
    assert {c.arm for c in found.candidates} == {"evolution", "best_of_n", "sequential"}
    assert [c.id for c in found.candidates] == list(range(1, 13))
    assert len(found.of(Arm.EVOLUTION)) == sum(
        c.arm == "evolution" and c.state == "done" for c in found.candidates
    )
    policies.RESULTS.write_bytes(msgspec.json.encode(found) + b"\n")
    assert policies.finished() == []  # of other settings than a real lab's
    policies.real([found, found])
    assert "| sequential |" in capsys.readouterr().out
