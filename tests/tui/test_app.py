"""The terminal lab over real labs whose trials are simulated: panes, keys, orders, hostile text, sizes."""

from __future__ import annotations

import os
import signal
import time

import msgspec
import pytest
from textual.widgets import ContentSwitcher

from asi_lab.lab import Lab, Store, commands, fresh
from asi_lab.protocol import Progress
from asi_lab.records import Terms
from asi_lab.tui import preferences, since
from asi_lab.tui.app import PANES
from asi_lab.tui.dialogs import Confirm, Help, Start
from asi_lab.tui.engine import Wanted
from asi_lab.tui.linetable import LineTable
from asi_lab.tui.preferences import Memory
from asi_lab.tui.snapshot import Reader
from tests.tui.conftest import CANDIDATES
from tests.tui.labs import EACH_SIZE, HOSTILE, SIZES, search, seen, until, use


@pytest.mark.parametrize("size", EACH_SIZE)
def test_every_pane_shows_the_lab(lab, size):
    expected = {
        "overview": ["finished", "DeltaNet"],
        "candidates": ["fitness", "0008"],
        "lineage": ["★ delta_net", "├─"],
        "curves": ["delta_net (yellow)", "step"],
        "diff": ["architecture.py: ", "against parent", "@@"],
        "agents": ["all of the lab", "No language model was asked"],
        "system": ["engine", "CPU", "disk"],
        "events": ["engine_started", "commit"],
    }

    async def script(app, pilot) -> None:
        for number, name in enumerate(PANES, start=1):
            await pilot.press(str(number))
            await pilot.pause(0.3)
            assert app.query_one(ContentSwitcher).current == name
            if name == "events":
                await pilot.press("home")
                await pilot.pause(0.1)
            for words in expected[name]:
                assert words in seen(app), (name, words, seen(app))
            assert "■ stopped" in seen(app)

    use(lab, size, script)


@pytest.mark.parametrize("size", EACH_SIZE)
def test_all_trials_at_work_are_shown(own, size):
    search(own, 4)
    progress = msgspec.to_builtins(Progress(130, 320, 133120, 3.2512, 1e-3, 12345.0, 0.0))
    beat = {"pid": os.getpid(), "time": time.time(), "state": "running", "experiments": 12, "slots": 2}
    first = {"label": "0004", "stage": "training", "progress": progress}
    with Store.open(own.store) as store:
        store.put_meta("engine", {**beat, **first, "beside": [{"label": "0003", "stage": "evaluation"}]})

    async def script(app, pilot) -> None:
        await pilot.press("1")
        await until(pilot, lambda: "step 130 of 320, loss 3.2512, 12,345 tokens/s; about" in seen(app))
        assert [line[13:18] for line in seen(app).splitlines() if "evaluation; about" in line] == ["0003 "]
        if size[0] > 80:
            assert "training loss of 0004, 0003" in seen(app)

    use(own, size, script)


@pytest.mark.parametrize("size", EACH_SIZE)
def test_the_selection_is_shared_and_follows_the_candidate(lab, size):
    async def script(app, pilot) -> None:
        await pilot.press("2", "end")
        await pilot.pause()
        assert app.selected == 0  # the oldest one, as the newest come first
        await pilot.press("k", "k", "k")
        await pilot.pause()
        chosen = app.selected
        assert chosen == 3
        table = app.query_one("#table", LineTable)
        for _ in range(5):  # all orders, and back
            await pilot.press("s")
            await pilot.pause()
            assert table.selected == app.selected == chosen
        await pilot.press("3")
        await pilot.pause()
        assert app.query_one("#tree", LineTable).selected == chosen
        await pilot.press("u")
        await pilot.pause()
        assert app.selected == app.reader.candidate(chosen).parent
        await pilot.press("b", "n")
        await pilot.pause()
        assert app.selected is not None

    use(lab, size, script)


@pytest.mark.parametrize("size", EACH_SIZE)
def test_rows_are_filtered_and_the_details_opened_and_closed(lab, size):
    async def script(app, pilot) -> None:
        table = app.query_one("#table", LineTable)
        await pilot.press("2", "slash", *"0005", "enter")
        await pilot.pause()
        assert [row.key for row in table.rows] == [5]
        assert app.focused is table
        await pilot.press("enter")
        await pilot.pause(0.2)
        if not app.query_one("#list").display:
            assert "Motivation" in seen(app) or "motivation" in seen(app)
        await pilot.press("escape")
        await pilot.pause()
        assert app.query_one("#list").display
        await pilot.press("escape")
        await pilot.pause()
        assert len(table.rows) == CANDIDATES + 1

    use(lab, size, script)


@pytest.mark.parametrize("size", EACH_SIZE)
def test_what_is_claimed_stands_in_the_table_and_in_the_overview(own, size):
    search(own, 3)
    with Store.open(own.store) as store:
        fresh.promote(store, "", Terms("mamba2", 24, tune=False, freedom=3.5), [2])

    async def script(app, pilot) -> None:
        assert "0 hold (false-discovery rate" in " ".join(seen(app).split())
        table = app.query_one("#table", LineTable)
        await pilot.press("2", "slash", *"open", "enter")
        await until(pilot, lambda: [row.key for row in table.rows] == [2])
        assert "● open" in seen(app)

    use(own, size, script)


def test_details_stand_beside_the_table_where_there_is_room(lab):
    async def script(app, pilot) -> None:
        await pilot.press("2")
        await pilot.pause(0.2)
        assert app.query_one("#details").display == (app.size.width >= 120)

    for size in SIZES:
        use(lab, size, script)


@pytest.mark.parametrize("size", [(59, 24), (80, 14)])
def test_a_terminal_that_is_too_small_is_told(lab, size):
    async def script(app, pilot) -> None:
        await pilot.pause(0.2)
        assert "asi-lab needs 60x15 characters." in seen(app)
        assert "overview" not in seen(app)
        await pilot.resize_terminal(80, 24)
        await pilot.pause(0.2)
        assert "1 overview" in seen(app)

    use(lab, size, script)


def test_help_lists_the_live_keys_and_closes(lab):
    async def script(app, pilot) -> None:
        await pilot.press("2", "question_mark")
        await pilot.pause(0.2)
        assert isinstance(app.screen, Help)
        words = dict(app.screen.keys)
        assert words["s"] == "Sort"
        await pilot.press("escape")
        await pilot.pause()
        assert not isinstance(app.screen, Help)

    use(lab, SIZES[0], script)


def test_folding_hides_what_descends(lab):
    async def script(app, pilot) -> None:
        tree = app.query_one("#tree", LineTable)
        await pilot.press("3", "home", "space")
        await pilot.pause()
        assert [row.key for row in tree.rows] == [0]
        assert "folded" in tree.rows[0].cells[0]
        await pilot.press("space")
        await pilot.pause()
        assert len(tree.rows) == CANDIDATES + 1

    use(lab, SIZES[0], script)


def test_events_are_filtered(lab):
    async def script(app, pilot) -> None:
        log = app.query_one("#log", LineTable)
        await pilot.press("8")
        await pilot.pause()
        everything = len(log.rows)
        await pilot.press("f")
        await pilot.pause()
        assert 0 < len(log.rows) < everything
        assert not any(row.cells[1] == "candidate_state" for row in log.rows)

    use(lab, SIZES[0], script)


@pytest.mark.slow
def test_no_key_breaks_a_pane(lab):
    keys = ("b", "m", "l", "f", "r", "plus", "minus", "left", "tab", "pagedown", "home", "space", "u", "n")

    async def script(app, pilot) -> None:
        for number in range(1, 9):
            await pilot.press(str(number), *keys)
            await pilot.pause()
            assert app.query_one(ContentSwitcher).current == list(PANES)[number - 1]
        assert app.return_code is None

    use(lab, SIZES[1], script)


def test_what_a_pane_is_about_is_copied(lab):
    async def script(app, pilot) -> None:
        await pilot.press("2", "home", "y")
        await pilot.pause(0.2)
        assert app.clipboard == f"{app.selected:04d}"
        file = preferences.state_folder() / "copied.txt"
        assert file.read_text() == app.clipboard
        assert file.stat().st_mode & 0o777 == 0o600
        await pilot.press("5", "y")
        await pilot.pause(0.2)
        assert app.clipboard.startswith("--- ")
        await pilot.press("b", "b", "b", "y")
        await pilot.pause(0.2)
        assert app.clipboard == app.reader.candidate(app.selected).proposal.code

    use(lab, SIZES[0], script)


def test_code_that_cannot_be_opened_is_told(lab):
    async def script(app, pilot) -> None:
        await pilot.press("o")  # this terminal is none that could be given away
        await pilot.pause(0.2)
        assert any("cannot be started" in note.message for note in app._notifications)

    use(lab, SIZES[0], script)


# Orders


def orders(lab: Lab) -> list[str]:
    return [command.action for _, command in commands.pending(lab.commands) if command is not None]


def test_orders_go_to_the_engine_and_stopping_is_confirmed(own, monkeypatch):
    search(own, 1)
    monkeypatch.setattr(Lab, "engine_pid", lambda self: 1)

    async def script(app, pilot) -> None:
        await pilot.press("p")
        await pilot.pause()
        assert orders(own) == ["pause"]
        await pilot.press("x")
        await pilot.pause()
        assert isinstance(app.screen, Confirm)
        box = app.screen.query_one("Vertical").region
        left, above = box.x, box.y
        assert (left, above) == ((app.size.width - box.width) // 2, (app.size.height - box.height) // 2)
        assert box.height < 12
        await pilot.press("enter")
        await pilot.pause()
        assert isinstance(app.screen, Confirm)  # Enter is no yes
        await pilot.press("n")
        await pilot.pause()
        assert orders(own) == ["pause"]
        await pilot.press("ctrl+x", "y")
        await pilot.pause(0.2)
        assert orders(own) == ["pause", "stop_now"]

    use(own, SIZES[0], script)


def test_without_an_engine_and_read_only_no_order_is_left(own):
    search(own, 1)

    async def script(app, pilot) -> None:
        await pilot.press("p")
        await pilot.press("x", "y")
        await pilot.pause(0.2)
        assert orders(own) == []

    use(own, SIZES[0], script)
    use(own, SIZES[0], script, readonly=True)


def test_an_engine_is_started_once_confirmed_and_outlives_the_application(own):
    started = []

    async def script(app, pilot) -> None:
        await until(pilot, lambda: isinstance(app.screen, Start))
        await pilot.press("s")
        await until(pilot, lambda: own.engine_pid() is not None, 30)
        started.append(own.engine_pid())
        await pilot.press("e")
        await pilot.pause(0.2)
        assert not isinstance(app.screen, Start)  # one is at work
        await pilot.press("q")

    use(own, SIZES[0], script)
    assert own.engine_pid() == started[0]
    os.kill(started[0], signal.SIGTERM)
    deadline = time.monotonic() + 30
    while own.engine_pid() is not None and time.monotonic() < deadline:
        time.sleep(0.1)
    assert own.engine_pid() is None
    assert (own.path / "engine.log").read_text()


def test_on_coming_back_one_is_told_what_happened(own):
    search(own, 3)
    preferences.remember(Memory(seen={str(own.path.resolve()): time.time()}))
    reader = Reader(own)
    snapshot = reader.read()
    reader.close()
    last = preferences.recall().seen[str(own.path.resolve())]
    assert since.summary(snapshot, last) == ""
    words = since.summary(snapshot, last - 3600)
    assert words.startswith("since ")
    assert ": 3 tried, " in words
    assert "beat the bar beyond noise" in words


def test_leaving_ends_the_application_only(lab):
    async def script(app, pilot) -> None:
        await pilot.press("q")
        await pilot.pause()
        assert app.return_value == 0

    use(lab, SIZES[0], script)


# Other states of a lab


def test_a_lab_without_a_search_says_what_comes_next(own):
    async def script(app, pilot) -> None:
        await until(pilot, lambda: isinstance(app.screen, Start))
        assert "micro" in seen(app)
        await pilot.press("escape")
        await pilot.pause()
        assert "never started" in seen(app)
        await pilot.press("2")
        await pilot.pause(0.2)
        assert "No candidates yet" in seen(app)
        for number in range(3, 9):
            await pilot.press(str(number))
            await pilot.pause()

    use(own, SIZES[0], script)


def test_a_lab_that_goes_away_is_told(own):
    search(own, 1)

    async def script(app, pilot) -> None:
        (own.path / "lab.toml").rename(own.path / "elsewhere.toml")
        await until(pilot, lambda: "The lab is gone" in seen(app))
        (own.path / "elsewhere.toml").rename(own.path / "lab.toml")
        await until(pilot, lambda: "stopped" in seen(app))

    use(own, SIZES[0], script)


@pytest.mark.parametrize("size", EACH_SIZE)
def test_hostile_text_is_text_everywhere(own, size):
    search(own, 3)
    with Store.open(own.store) as store:
        for number in (1, 2, 3):
            found = store.get(number)
            proposal = msgspec.structs.replace(
                found.proposal, name=HOSTILE, motivation=HOSTILE, change=HOSTILE, code=f"# {HOSTILE}\n"
            )
            evidence = found.evidence and msgspec.structs.replace(found.evidence, error=HOSTILE)
            store.put(msgspec.structs.replace(found, proposal=proposal, evidence=evidence))
        store.append_events(("warning", HOSTILE, {}), candidate=2)

    async def script(app, pilot) -> None:
        await pilot.press("2", "home")
        for number in range(1, 9):
            await pilot.press(str(number))
            await pilot.pause(0.2)
            text = seen(app)
            assert "\x1b" not in text
            assert "\u202e" not in text
            assert "\0" not in text
            if number in (2, 3, 8):
                assert "[/b]" in text
        await pilot.press("2", "enter")
        await pilot.pause(0.3)
        assert "[red]boo[/red]" in seen(app)

    use(own, size, script)


def test_the_reader_reads_what_is_new_only(own):
    search(own, 2)
    reader = Reader(own)
    first = reader.read()
    again = reader.read()
    assert again.summaries is first.summaries
    assert again.events is first.events
    reader.close()
    search(own, 3)
    reader = Reader(own)
    assert len(reader.read().summaries) == 4
    reader.close()


@pytest.mark.parametrize("size", EACH_SIZE)
def test_limits_of_a_search_are_typed_before_it_is_started(own, size, monkeypatch):
    started = []
    monkeypatch.setattr("asi_lab.tui.engine.start", lambda lab, wanted: started.append(wanted) or lab.path)

    async def script(app, pilot) -> None:
        await until(pilot, lambda: isinstance(app.screen, Start))
        await pilot.press("tab", *"12", "tab", "0", "full_stop", "5")
        await pilot.pause(0.2)
        assert "12" in seen(app)
        assert "0.5" in seen(app)
        await pilot.press("enter", "s")
        await until(pilot, lambda: started)
        assert started == [Wanted(12, 0.5)]
        await pilot.press("e")
        await until(pilot, lambda: isinstance(app.screen, Start))
        await pilot.press("tab", "0", "enter", "s")
        await pilot.pause(0.2)
        assert "above 0" in seen(app)
        assert len(started) == 1

    use(own, size, script)
