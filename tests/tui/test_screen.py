"""What the screen says is true: read from its cells, at both sizes."""

from __future__ import annotations

import asyncio
import os
import tempfile
import threading
import time
from pathlib import Path

import msgspec
import pytest
from textual import events
from textual.keys import _character_to_key

from asi_lab.lab import Lab, Store, commands
from asi_lab.tui.app import LabApp
from asi_lab.tui.commandline import CommandLine
from asi_lab.tui.dialogs import Start
from asi_lab.tui.engine import Wanted
from asi_lab.tui.field import Field
from asi_lab.tui.linetable import LOADING, LineTable
from asi_lab.tui.panes import system
from asi_lab.tui.recording import Recording
from asi_lab.tui.snapshot import Reader, Snapshot
from tests.tui.labs import EACH_SIZE, SIZES, fresh, search, seen, toasts, until, use

NO_ENGINE = "No engine is at work: e starts one."
PARENTS = {0: None, 1: 0, 2: 1, 3: 1, 4: 3, 5: 3, 6: 0, 7: 4, 8: 7}


class Family(Reader):
    """The lab with other parents, and spaces and breaks in a name."""

    def read(self) -> Snapshot:
        found = super().read()
        summaries = [msgspec.structs.replace(s, parent=PARENTS[s.id]) for s in found.summaries]
        summaries[5] = msgspec.structs.replace(summaries[5], name="a\n\n  b")
        return msgspec.structs.replace(found, summaries=tuple(summaries))


async def burst(app: LabApp, pilot, *keys: str) -> None:
    """Press keys faster than anything can be done about the first: all are there before it is looked at."""
    for key in keys:
        character = key if len(key) == 1 else None
        app.post_message(events.Key(_character_to_key(key) if character else key, character))
    await pilot.pause(0.2)


def given(lab: Lab) -> list[tuple[str, int | None, str]]:
    return [(c.action, c.candidate, c.text) for _, c in commands.pending(lab.commands) if c is not None]


@pytest.fixture
def at_work(own, monkeypatch) -> Lab:
    """A lab on which, as far as can be seen, an engine is at work."""
    search(own, 3)
    monkeypatch.setattr(Lab, "engine_pid", lambda self: 1)
    return own


def drawn(app: LabApp) -> dict[int, int]:
    """The candidates of the tree on the screen, from top to bottom, with the columns of their signs."""
    places = {}
    for line in seen(app).splitlines():
        column = next((x for x, sign in enumerate(line) if sign in "●✗◌"), None)
        if column is not None and line[column + 2 : column + 6].isdigit():
            places[int(line[column + 2 : column + 6])] = column
    return places


# Blanks


@pytest.mark.parametrize("size", SIZES)
def test_the_tree_is_indented_by_parent(lab, size):
    async def script(app, pilot) -> None:
        app.reader.close()
        app.reader = Family(lab)
        app.poll()
        await pilot.press("3")
        await until(pilot, lambda: app.snapshot.summaries[8].parent == 7)
        await pilot.pause(0.1)
        places = drawn(app)
        assert list(places) == [0, 1, 2, 3, 4, 7, 8, 5, 6]
        above: list[int] = []
        for number, column in places.items():
            above = [one for one in above if places[one] < column]
            assert (above[-1] if above else None) == PARENTS[number], seen(app)
            above.append(number)
        assert len({places[number] for number in (0, 1, 3, 4, 7, 8)}) == 6  # each one deeper
        assert any(line.endswith("0005 a b") or "0005 a b " in line for line in seen(app).splitlines())

    use(lab, size, script)


def test_stars_of_wins_stand_behind_the_figures(lab):
    async def script(app, pilot) -> None:
        await pilot.press("2")
        await pilot.pause(0.1)
        lines = seen(app).splitlines()
        heading = next(line for line in lines if " in sd " in line)
        end = heading.index(" in sd ") + len(" in sd")
        cells = [line[end - 2 : end] for line in lines if "● done" in line]
        found = [cell for cell in cells if cell.strip()]
        assert len(found) > 2
        assert all(cell[0].isdigit() and cell[1] in "* " for cell in found), cells

    use(lab, SIZES[0], script)


def test_a_path_and_a_line_of_the_machine_keep_their_blanks(monkeypatch):
    folder = tempfile.TemporaryDirectory()  # of a short path, which is not broken into lines
    odd = fresh(Path(folder.name) / "a  b")
    monkeypatch.setattr(system, "_machine", lambda machine: iter([("GPU 0", "50%  1 of 2 GiB  a card")]))

    async def script(app, pilot) -> None:
        await pilot.press("escape")
        for key in "17":
            await pilot.press(key)
            await pilot.pause(0.1)
            assert "/a  b/lab" in seen(app)
        assert "50%  1 of 2 GiB  a card" in seen(app)

    with folder:
        use(odd, SIZES[1], script)


# Keys in a burst


@pytest.mark.parametrize("size", EACH_SIZE)
def test_a_filter_is_typed_as_fast_as_one_likes(lab, size):
    async def script(app, pilot) -> None:
        await burst(app, pilot, *"32/0005", "enter", "enter")
        assert app.query_one(Field).value == "0005"
        assert [row.key for row in app.query_one("#table").rows] == [5]
        assert app.focused is app.query_one("#details")  # the second Enter was for the row
        await burst(app, pilot, "escape", "slash", *"0003", "enter", "j")
        assert app.query_one(Field).value == "0003"  # in the place of the first, and j was for the table
        lines = [line for line in seen(app).splitlines() if "● done" in line or "✗ " in line]
        assert len(lines) == 1
        assert "0003" in lines[0]

    use(lab, size, script)


def test_what_is_typed_behind_a_key_that_takes_words_is_not_lost(at_work):
    async def script(app, pilot) -> None:
        await burst(app, pilot, "2", "home", "j", "P", "end", "B")
        await burst(app, pilot, *":2", "enter", "P", "i", *"two: px", "enter", *"tgood", "enter", "c", *"why")
        await burst(app, pilot, "enter", "x", "y", *":1", "enter", *":ru")
        line = app.query_one(CommandLine)
        assert (app.focused, line.value) == (line, "ru")
        assert "ru" in seen(app).splitlines()[-2]

    use(at_work, SIZES[0], script)
    assert given(at_work) == [
        ("pin", 2, ""),  # the second of 3, 2, 1 and 0
        ("ban", 0, ""),
        ("pin", 2, ""),
        ("idea", None, "two: px"),
        ("tag", 2, "good"),
        ("comment", 2, "why"),
        ("stop", None, ""),
    ]


def test_limits_are_typed_as_fast_as_one_likes(own, monkeypatch):
    started = []
    monkeypatch.setattr("asi_lab.tui.engine.start", lambda lab, wanted: started.append(wanted) or lab.path)

    async def script(app, pilot) -> None:
        await until(pilot, lambda: isinstance(app.screen, Start))
        await burst(app, pilot, "escape", "e", "tab", *"12", "tab", *"0.5", "enter", "s")
        assert started == [Wanted(12, 0.5)]

    use(own, SIZES[0], script)


def test_a_command_is_searched_for_as_fast_as_one_likes(lab):
    async def script(app, pilot) -> None:
        await burst(app, pilot, "ctrl+p", *"lineage")
        await until(pilot, lambda: "bring this pane into view" in seen(app))
        assert app.focused.value == "lineage"

    use(lab, SIZES[0], script)


# Labels of axes


@pytest.mark.parametrize("size", EACH_SIZE)
def test_a_label_leaves_nothing_of_the_one_before(lab, size):
    async def script(app, pilot) -> None:
        app.selected = 5
        await pilot.press("4")
        for label in ("log loss", "loss", "log loss", "loss"):
            await pilot.press("l")
            await pilot.pause(0.2)
            labels = [line.strip() for line in seen(app).splitlines() if line.strip().endswith("loss")]
            assert labels == [label]
        for axis in ("tokens", "seconds", "step"):
            await pilot.press("+", "a")
            await pilot.pause(0.2)
            assert "⠉" in seen(app)  # the curves are in view, wherever the axis before was zoomed to
            assert [line.strip() for line in seen(app).splitlines()][-2] == axis
        await pilot.press("full_stop")  # the legend is a line longer now
        await pilot.pause(0.2)
        assert [line.strip() for line in seen(app).splitlines()][-2] == "step"
        await burst(app, pilot, "escape", "a", ".")  # the middle of an axis that was not drawn yet
        assert "at tokens" in seen(app)
        tokens = app.reader.series("0005")[:, 1]
        assert app.query_one("#curves")._cross == (tokens[0] + tokens[-1]) / 2

    use(lab, size, script)


# Orders


def test_an_order_without_an_engine_is_answered_once(lab):
    async def script(app, pilot) -> None:
        popped = toasts(app)
        await pilot.press("8")
        for count, key in enumerate(("p", "x", "ctrl+x"), start=1):
            await pilot.press(key)
            await pilot.pause(1.2)  # and not by the next look either
            assert popped == [NO_ENGINE] * count
            app.clear_notifications()
            await pilot.pause(0.2)
            assert seen(app).count(NO_ENGINE) == count

    use(lab, SIZES[0], script)


@pytest.mark.parametrize("size", EACH_SIZE)
def test_an_order_is_pending_until_it_is_carried_out(own, size, monkeypatch):
    search(own, 2)
    monkeypatch.setattr(Lab, "engine_pid", lambda self: os.getpid())
    beat: dict[str, str] = {}
    get_meta = Store.get_meta

    def engine(self: Store, key: str, default: object = None) -> object:
        trial = {"pid": os.getpid(), "time": time.time(), "label": "0002", "stage": "training"}
        return {**trial, **beat} if key == "engine" else get_meta(self, key, default)

    def beats(state: str, ordered: str) -> None:
        beat.update(state=state, ordered=ordered)

    monkeypatch.setattr(Store, "get_meta", engine)

    def head(app) -> str:
        return seen(app).splitlines()[0].strip()

    beats("running", "")

    async def script(app, pilot) -> None:
        assert head(app).startswith("▶ running")
        await pilot.press("1", "p")
        await until(pilot, lambda: head(app).startswith("▶ pause pending"))  # nobody has taken it yet
        assert "running, pause pending" in seen(app)
        for path, _ in commands.pending(own.commands):
            path.unlink()
        beats("running", "pause")  # it is taken, and the trial goes on
        app.poll()
        await pilot.pause(0.3)
        assert head(app).startswith("▶ pause pending")
        beats("paused", "pause")
        await until(pilot, lambda: head(app).startswith("⏸ paused"))
        assert "pause pending" not in seen(app)
        beats("running", "pause")
        await until(pilot, lambda: head(app).startswith("▶ pause pending"))
        await pilot.press("p")  # takes it back
        assert given(own) == [("resume", None, "")]
        await until(pilot, lambda: head(app).startswith("▶ resume pending"))
        await pilot.press("x", "y")
        await until(pilot, lambda: head(app).startswith("▶ stop pending"))
        await pilot.press("p")  # an end is not taken back
        await pilot.pause(0.3)
        assert head(app).startswith("▶ stop pending")
        await pilot.press("ctrl+x", "y")
        await until(pilot, lambda: head(app).startswith("▶ stop now pending"))
        await pilot.press("7")
        await until(pilot, lambda: "running, stop now pending, process" in seen(app))
        beats("stopped", "stop_now")
        await until(pilot, lambda: head(app).startswith("■ stopped"))
        assert "now pending" not in seen(app)

    use(own, size, script)


# Lists without rows


@pytest.mark.parametrize("size", EACH_SIZE)
def test_a_filter_that_nothing_matches_says_so_and_how_to_clear_it(lab, size):
    async def script(app, pilot) -> None:
        await pilot.press("2")
        await burst(app, pilot, *"/漢x")
        assert "Nothing matches the filter '漢x': Esc clears it." in seen(app).replace("漢 ", "漢")
        await pilot.press("escape")
        await pilot.pause(0.1)
        assert "Nothing matches" not in seen(app)
        assert "0008" in seen(app)
        await pilot.press("8", "f", "f")
        await pilot.pause(0.1)
        assert "Nothing matches the filter 'warnings and errors': f changes it." in seen(app)
        await pilot.press("f")
        await pilot.pause(0.1)
        assert "engine" in seen(app)
        assert "Nothing matches" not in seen(app)

    use(lab, size, script)


@pytest.mark.parametrize("size", EACH_SIZE)
def test_no_other_row_is_shown_as_selected(lab, size):
    def cursor(table: LineTable) -> list[str]:
        style = table.get_component_rich_style("linetable--cursor").bgcolor
        strips = [table.render_line(y) for y in range(1, len(table.rows) + 1)]
        return [strip.text.strip()[:4] for strip in strips if next(iter(strip)).style.bgcolor == style]

    async def script(app, pilot) -> None:
        table = app.query_one("#table", LineTable)
        await pilot.press("2")
        app.selected = 5
        await pilot.pause(0.1)
        assert cursor(table) == ["0005"]
        await burst(app, pilot, *"/0003", "enter")
        assert cursor(table) == []  # what is selected, and what keys are about, is not in view
        assert app.selected == 5
        await pilot.press("down")
        await pilot.pause(0.1)
        assert cursor(table) == [f"{app.selected:04d}"] == ["0003"]
        app.selected = 5
        await pilot.press("escape")
        await pilot.pause(0.1)
        assert cursor(table) == ["0005"]

    use(lab, size, script)


@pytest.mark.parametrize("size", EACH_SIZE)
def test_a_list_that_is_loading_says_so(lab, size, monkeypatch):
    read, ready = Reader.read, threading.Event()
    monkeypatch.setattr(Reader, "read", lambda self: ready.wait(20) and read(self))

    async def run() -> None:
        app = LabApp(lab)
        async with app.run_test(size=size) as pilot:
            for key, empty in (("2", "No candidates yet"), ("3", "begins with"), ("8", "Nothing has")):
                await pilot.press(key)
                await pilot.pause(0.1)
                assert LOADING in seen(app)
                assert empty not in seen(app)
            ready.set()
            await until(pilot, lambda: "engine_started" in seen(app) or "commit" in seen(app))
            assert LOADING not in seen(app)

    asyncio.run(run())


def test_a_recording_before_its_first_candidate_has_none(lab):
    recording = Recording(lab)
    recording.clock.hold()
    recording.clock.move(1.0)

    async def script(app, pilot) -> None:
        await pilot.press("3", "a")
        recording.clock.move(-1.0)
        for key, words in (
            ("2", "There are no candidates yet."),  # in the place of the details
            ("3", "The lineage begins with the baselines."),
            ("5", "There are no candidates yet."),
        ):
            await pilot.press(key)
            app.poll()
            await until(pilot, lambda words=words: words in seen(app))

    use(lab, SIZES[1], script, recording=recording)


def test_a_lab_without_candidates_says_so_on_every_pane(own):
    async def script(app, pilot) -> None:
        await pilot.press("escape")
        for key, words in (
            ("2", "No candidates yet: the baselines come first."),
            ("3", "The lineage begins with the baselines."),
            ("5", "There are no candidates yet."),
            ("6", "There are no candidates yet."),
            ("8", "Nothing has happened yet."),
        ):
            await pilot.press(key)
            await pilot.pause(0.1)
            assert words in seen(app)

    use(own, SIZES[1], script)
