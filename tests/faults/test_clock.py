"""A wall clock that is set back and forth, by seconds and by years, within and between searches."""

from __future__ import annotations

import itertools
import json
import os
import re
import time

import msgspec
import pytest

from asi_lab.lab import Lab, Lineage, Store, commands
from asi_lab.lab.commits import candidate_commit
from asi_lab.protocol import Progress
from asi_lab.records import CandidateState
from asi_lab.view import status

NOW = 1_700_000_000.0
YEAR = 365 * 86_400.0
CLOCKS = {
    "back by a minute": [NOW, NOW - 60],
    "back by years": [NOW, NOW - 5 * YEAR],
    "forward by years": [NOW, NOW + 20 * YEAR],
    "to and fro": [NOW, NOW + 3 * YEAR, NOW - 3 * YEAR, NOW + 60],
    "to the beginning": [NOW, 0.0],
}


def slow(*values):
    """Parameters that are left to the slow tests."""
    return [pytest.param(value, marks=pytest.mark.slow) for value in values]


def results(lab: Lab) -> list:
    """What a search found; its commits carry its dates."""
    with Store.open_readonly(lab.store) as store:
        return [(c.id, c.state, c.draw, c.proposal, c.loss, c.score) for c in store.candidates()]


def events(lab: Lab) -> list:
    with Store.open_readonly(lab.store) as store:
        return store.events(limit=10**6)


def assert_sane(lab: Lab, found: status.Status) -> None:
    """Assert that nothing in a status is negative or absurd."""
    spans = [found.left, found.engine.beat_age, found.pace and found.pace.seconds]
    spans += [found.doing and found.doing.left]
    if found.seconds is not None:
        spans += [found.seconds.training, found.seconds.evaluation, found.seconds.whole]
    limit = lab.settings().limits.trial_seconds
    assert all(span is None or span >= 0 for span in spans), spans
    assert found.pace is None or found.pace.seconds <= limit
    assert found.left is None or found.left <= limit * (found.wanted or 0)


@pytest.mark.parametrize("clock", CLOCKS)
@pytest.mark.parametrize("every", [11, *slow(3)])
def test_a_search_under_a_wild_clock_finds_the_same(prepared, undisturbed, engines, copy, clock, every):
    lab = copy(prepared)
    engines.finish(lab, clock=CLOCKS[clock], every=every)
    assert results(lab) == results(undisturbed)
    found = events(lab)
    assert [event.seq for event in found] == list(range(1, len(found) + 1))
    kept = [(e.kind, e.candidate) for e in events(undisturbed)]
    assert [(e.kind, e.candidate) for e in found] == kept, "the order is that of the numbers"
    assert engines.program(lab, "fsck").code == 0
    shown = engines.program(lab, "status")
    assert shown.code == 0
    assert not re.search(r"-\d+:\d\d", shown.said)


@pytest.mark.parametrize("clock", [NOW - 5 * YEAR, *slow(NOW - 1, NOW + 5 * YEAR)])
@pytest.mark.parametrize(
    "place", ["after candidate 1 trained", "after candidate 2 diverged", "before git read-tree"]
)
def test_a_search_goes_on_under_another_clock(prepared, undisturbed, engines, boundaries, copy, clock, place):
    lab = copy(prepared)
    engines.run(lab, kill=boundaries.index(place) + 1)
    engines.finish(lab, clock=[clock], every=10**6)
    assert results(lab) == results(undisturbed)
    assert [event.seq for event in events(lab)] == list(range(1, len(events(lab)) + 1))
    assert engines.program(lab, "fsck").code == 0


@pytest.mark.parametrize("clock", ["to and fro", *slow(*(name for name in CLOCKS if name != "to and fro"))])
def test_no_estimate_is_negative_or_absurd(
    prepared, engines, boundaries, copy, monkeypatch, record_property, clock
):
    """Looked at from every clock, with a candidate on its way."""
    lab, drills = copy(prepared), 0
    engines.run(lab, kill=boundaries.index("after candidate 4 training") + 1, clock=CLOCKS[clock], every=5)
    looks = sorted({look for times in CLOCKS.values() for look in times})
    for now, state in itertools.product(looks, ("running", "stopped")):
        with Store.open(lab.store) as store:
            progress = msgspec.to_builtins(Progress(30, 90, 3000, 3.25, 1e-3, 100.0, 0.0))
            beat = {"pid": os.getpid(), "time": now, "state": state, "experiments": 9}
            store.put_meta("engine", {**beat, "label": "0004", "stage": "training", "progress": progress})
        monkeypatch.setattr(time, "time", lambda now=now: now)
        with Store.open_readonly(lab.store) as store:
            found = status.read(lab, lab.settings(), store)
        assert found.engine.state == state
        assert_sane(lab, found)
        drills += 1
    record_property("drills", drills)


@pytest.mark.parametrize(
    ("shift", "state"),
    [(0, "running"), (-2, "running"), (2, "running"), (-60, "lost contact"), (60, "lost contact")]
    + [(years * YEAR, "lost contact") for years in (-5, 5)],
)
def test_a_beat_far_from_now_is_none_of_an_engine_that_beats(undisturbed, copy, engines, shift, state):
    """Either way: one that lives has beaten again, by the clock as it is, within a second or so."""
    lab = copy(undisturbed)
    with Store.open(lab.store) as store:
        store.put_meta("engine", {"pid": os.getpid(), "time": time.time() + shift, "state": "running"})
    found = json.loads(engines.program(lab, "status", "--json").said)
    # the program is asked by the real clock
    assert found["engine"]["state"] == state
    assert found["engine"]["beat_age"] >= 0


def test_the_pace_leaves_out_what_the_clock_spoilt(undisturbed):
    settings = undisturbed.settings()
    with Store.open_readonly(undisturbed.store) as store:
        done = [s for s in store.summaries() if s.state is CandidateState.DONE]
    spans = (30.0, -5 * YEAR, 5 * YEAR, 50.0, -1.0)
    rows = [
        msgspec.structs.replace(done[1], id=number, created=NOW, updated=NOW + span)
        for number, span in enumerate(spans, start=1)
    ]
    found = status.pace(rows, settings)
    assert (found.seconds, found.of) == (40.0, 2)
    running = msgspec.structs.replace(rows[0], id=9, state=CandidateState.TRAINING, created=NOW)
    for now in (NOW - 5 * YEAR, NOW, NOW + 10, NOW + 5 * YEAR):
        left = status.time_left([*rows, running], 6, found, now)
        assert 0 <= left <= 40.0
    assert status.time_left([*rows, running], 6, found, NOW - 5 * YEAR) == 40.0


def test_the_budget_of_hours_runs_by_itself(prepared, engines, copy):
    """A clock that leaps years ahead does not end the search, one that is set back does not prolong it."""
    for clock in ([NOW, NOW + 20 * YEAR], [NOW, NOW - 20 * YEAR]):
        lab, began = copy(prepared), time.monotonic()
        ended = engines.run(lab, 10**6, clock=clock, every=7, hours=6.0 / 3600)
        assert ended.code == 0
        assert time.monotonic() - began >= 6.0
        assert len(results(lab)) > 1


def test_orders_keep_their_order_when_the_clock_is_set_back(tmp_path, monkeypatch):
    times = iter([NOW, NOW - 5 * YEAR, NOW - 4 * YEAR, NOW + 1])
    monkeypatch.setattr(time, "time_ns", lambda: int(next(times) * 1e9))
    sent = [commands.send(tmp_path, action) for action in ("pause", "resume", "pause", "stop")]
    assert [command for _, command in commands.pending(tmp_path)] == sent


@pytest.mark.parametrize("when", [-2.2e9, -1.0, 0.0, 2**31, 2**32 + 0.5, 7_258_118_400, 2.5e11])
def test_git_takes_every_date_that_a_clock_can_show(tmp_path, make_candidate, when):
    lineage = Lineage.create(tmp_path / "l", make_candidate(0), "")
    root = lineage.sha_of(0)
    candidate = msgspec.structs.replace(make_candidate(1), created=when)
    assert lineage.commit(candidate, "", root) == candidate_commit(candidate, "", root).sha
    assert lineage.verify() == []
