"""SIGKILL of the engine, at every boundary of its durable changes."""

from __future__ import annotations

import itertools
import shutil

import pytest

from asi_lab.lab import Store
from asi_lab.records import CandidateState

WAY = ["proposed", "checked", "preflighted", "training", "trained", "evaluated", "judged", "analysed"]
STEPS = {
    *(f"candidate 1 {state}" for state in (*WAY, "done published")),
    *(f"candidate 2 {state}" for state in ("diverged", "diverged published")),
    *("candidate 0 done", "candidate 0 done published", "put_baseline"),
    *("git fast-import", "git update-ref refs/heads/best"),
}
"""The steps of a scored and of a failed candidate, of the baselines and of the publication."""
CHANGES = STEPS | {
    *(f"candidate 2 {state}" for state in WAY[:4]),
    *("append_series", "drop_series", "put_meta config", "put_meta data", "put_meta engine"),
    *("git layout", "git head", "git read-tree"),
}
"""All kinds of durable changes."""


def test_the_boundaries_cover_every_state_and_publication(boundaries, undisturbed):
    for side in ("before", "after"):
        passed = {what.removeprefix(f"{side} ") for what in boundaries if what.startswith(side)}
        assert passed >= CHANGES
        assert len(boundaries) > 150
    with Store.open_readonly(undisturbed.store) as store:
        states = [c.state for c in store.candidates()]
        assert len(store.baselines()) == 6
        assert [e.candidate for e in store.events() if e.kind == "best"] == [1, 4]
        assert any(e.kind == "pool_updated" for e in store.events())
    done = CandidateState.DONE
    assert states == [done, done, CandidateState.DIVERGED, done, done]


def drill(boundaries, places, prepared, engines, copy, same) -> int:
    """Kill at each of the places, go on, and compare with a search that met no fault."""
    for place in places:
        lab = copy(prepared)
        killed = engines.run(lab, kill=place)
        assert (killed.code, killed.boundaries) == (-9, boundaries[:place])
        engines.finish(lab)
        same(lab, f"after a kill {boundaries[place - 1]}")
        shutil.rmtree(lab.path)
    return len(places)


@pytest.mark.slow
def test_killed_behind_each_step_it_ends_the_same(boundaries, prepared, engines, copy, same, record_property):
    places = [boundaries.index(f"after {step}") + 1 for step in sorted(STEPS)]
    record_property("drills", drill(boundaries, places, prepared, engines, copy, same))


@pytest.mark.slow
@pytest.mark.parametrize("side", ["before", "after"])
def test_killed_at_every_single_boundary_it_ends_the_same(
    boundaries, prepared, engines, copy, same, record_property, side
):
    places = [place for place, what in enumerate(boundaries, start=1) if what.startswith(side)]
    assert len(places) == len(boundaries) / 2
    record_property("drills", drill(boundaries, places, prepared, engines, copy, same))


@pytest.mark.slow
def test_killed_again_and_again_it_ends_the_same(boundaries, prepared, engines, copy, same, record_property):
    """Each engine is killed a few boundaries further than the last one came."""
    drills = 0
    for first in (3, 4, 7, 10, 13):
        lab = copy(prepared)
        for place in itertools.count(first, 2):
            drills += 1
            ended = engines.run(lab, kill=place)
            if ended.code == 0:
                break
            assert ended.code == -9
            assert place < len(boundaries), "the search goes on"
        same(lab, f"after kills at {first}, {first + 2}, ...")
    record_property("drills", drills)
