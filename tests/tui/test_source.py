"""Where panes read from: a lab as it is, and a recording of it; and what only a recording has."""

from __future__ import annotations

import time
from types import SimpleNamespace

import numpy as np
import pytest

from asi_lab.errors import UsageError
from asi_lab.records import CandidateState
from asi_lab.tui import recording
from asi_lab.tui.recording import PlaybackClock, Recording
from asi_lab.tui.snapshot import Reader, Source
from tests.tui.labs import EACH_SIZE, MODELS, SIZES, fresh, search, search_with_models, seen, told, until, use

S = CandidateState


@pytest.fixture(scope="module")
def talked(tmp_path_factory):
    """A search with a language model."""
    made = fresh(tmp_path_factory.mktemp("talked"), MODELS)
    search_with_models(made, 4)
    return made


def at_end(lab) -> Recording:
    found = Recording(lab)
    found.clock.move(1.0)
    return found


@pytest.mark.parametrize("make", [Reader, at_end], ids=["lab", "recording"])
class TestSource:
    """What every source does; at its end a recording shows what the lab shows."""

    @pytest.fixture
    def source(self, make, talked):
        found: Source = make(talked)
        yield found
        found.close()

    def test_a_snapshot_holds_the_lab(self, source):
        found = source.read()
        assert [summary.id for summary in found.summaries] == [0, 1, 2, 3, 4]
        assert all(summary.state.is_terminal for summary in found.summaries)
        assert found.board is not None
        assert found.events[-1].kind == "engine_stopped"
        assert found.status.finished == 4
        assert found.status.engine.state == "stopped"
        assert found.status.spent.calls > 0

    def test_candidates_are_given_by_id(self, source):
        found = source.candidate(2)
        assert found is not None
        assert found.proposal is not None
        assert found.commit is not None
        assert source.candidate(99) is None
        assert source.dossier(99) is None
        known = source.dossier(2)
        assert known is not None
        assert known.candidate == found
        assert known.parent is not None
        assert known.spent.calls > 0

    def test_curves_are_whole(self, source):
        assert source.series("0001").shape == (3, 7)
        assert source.series("delta_net-seed0").shape == (3, 7)
        assert source.series("nothing").shape == (0, 7)

    def test_what_was_said_and_spent_is_there(self, source):
        calls, costs = source.calls(2), source.costs(2)
        assert {call.role for call in calls} >= {"planner", "judge", "analyst"}
        assert len([entry for entry in costs if entry["role"] != "trial"]) == len(calls)
        assert source.calls(99) == []
        assert source.costs(99) == []
        assert [arm.model for arm in source.arms()] == ["openai:night"]


def test_both_show_the_same_at_the_end(talked):
    live, played = Reader(talked), None
    first = live.read()
    live.close()
    played = at_end(talked)
    found = played.read()
    played.close()
    assert found.summaries == first.summaries
    assert found.board == first.board
    assert found.events == first.events
    assert found.status.states == first.status.states


def test_nothing_is_known_before_it_happened(lab):
    played = Recording(lab)
    played.clock.hold()
    try:
        events = {event.seq: event for event in played._events}
        for share in np.linspace(0, 1, 40):
            played.clock._at = share * played.clock.length
            found, now = played.read(), played.clock.now
            assert all(event.time <= now for event in found.events)
            assert len(found.events) == sum(event.time <= now for event in events.values())
            for summary in found.summaries:
                state = summary.state
                reached = not state.is_failure and state not in (S.PROPOSED, S.CHECKED, S.PREFLIGHTED)
                if state in (S.PROPOSED, S.CHECKED, S.PREFLIGHTED, S.TRAINING, S.TRAINED):
                    assert summary.loss is None
                    assert summary.fitness is None
                record = played.candidate(summary.id)
                assert record is not None
                assert record.state is state
                if not state.is_terminal:
                    assert record.analysis is None or state is S.ANALYSED
                    assert record.commit is None
                if state is S.PROPOSED and summary.id:
                    assert len(played.series(f"{summary.id:04d}")) == 0
                assert reached or summary.commit is None or state.is_failure
            ids = [summary.id for summary in found.summaries]
            assert played.candidate(99) is None
            assert ids == sorted(ids)
            later = {s.id for s in played._final.values()} - set(ids)
            assert all(played.candidate(number) is None for number in later)
    finally:
        played.close()


def test_a_lab_without_a_search_has_nothing_to_play(own):
    with pytest.raises(UsageError, match="expected a search to play again"):
        Recording(own)


@pytest.fixture
def ticking(monkeypatch):
    """A clock of the machine that the test turns."""
    machine = SimpleNamespace(now=100.0)
    monkeypatch.setattr(recording.time, "monotonic", lambda: machine.now)
    return machine


def test_the_clock_runs_over_times_of_work_only(ticking):
    clock = PlaybackClock([(1000.0, 1060.0), (5000.0, 5120.0)])
    assert clock.length == 180
    assert clock.speed == 5  # about ninety seconds in all
    assert clock.now == 1000
    ticking.now += 6
    assert clock.now == 1030
    ticking.now += 12
    assert clock.now == 5030
    clock.hold()
    ticking.now += 1000
    assert clock.now == 5030
    clock.move(-0.5)
    assert clock.now == 1000
    clock.hold()
    clock.faster(1)
    ticking.now += 7
    assert clock.speed == 10
    assert clock.now == 5010
    ticking.now += 1000
    assert clock.over
    assert clock.now == 5120
    clock.hold()  # at the end that means once more
    assert clock.now == 1000
    assert not clock.held
    clock.faster(-100)
    assert clock.speed == 1
    clock.faster(100)
    assert clock.speed == 3600


@pytest.mark.parametrize("size", EACH_SIZE)
def test_a_recording_is_played_held_and_moved(lab, size):
    async def script(app, pilot) -> None:
        clock = app.recording.clock
        assert "recording" in seen(app)
        assert "a real search" in seen(app)
        await pilot.press("p")
        assert not clock.held
        await pilot.press("p")
        assert clock.held
        at = clock.position
        await pilot.press("ctrl+right")
        assert clock.position == pytest.approx(min(at + 0.05 * clock.length, clock.length))
        await pilot.press("ctrl+left")
        assert clock.position == pytest.approx(at)
        speed = clock.speed
        await pilot.press("right_parenthesis")
        assert clock.speed > speed
        await pilot.press("left_parenthesis")
        assert clock.speed == speed
        clock.move(1.0)
        app.poll()
        await until(pilot, lambda: app.snapshot.status.finished == 8)
        for number in range(1, 9):
            await pilot.press(str(number))
            await pilot.pause(0.1)
        await pilot.press("x", "R")
        assert any("cannot be steered" in words for words in told(app))

    played = Recording(lab)
    played.clock.hold()
    use(lab, size, script, recording=played, title="a real search")


def test_a_recording_begins_with_nothing(lab):
    played = Recording(lab)
    played.clock.hold()
    played.clock._at = 0.0

    async def script(app, pilot) -> None:
        for number in range(1, 9):
            await pilot.press(str(number))
            await pilot.pause(0.1)
        assert app.snapshot.status.finished == 0

    use(lab, SIZES[0], script, recording=played)


def test_spans_end_with_the_last_event_of_a_killed_engine():
    def event(when: float, kind: str):
        return SimpleNamespace(time=when, kind=kind)

    events = [event(1, "engine_started"), event(5, "note"), event(50, "engine_started"), event(60, "note")]
    assert recording._spans(events) == [(1, 5), (50, 60)]


def test_a_search_that_goes_on_is_seen_to(own):
    search(own, 1)
    played = Recording(own)
    assert played.clock.length > 0
    assert time.time() > played.clock.spans[-1][1]
    played.close()
