"""The command line: every command by name, by a few letters, with words and without."""

from __future__ import annotations

import pytest

from asi_lab.lab import Lab, commands
from asi_lab.tui import verbs
from asi_lab.tui.app import PANES
from asi_lab.tui.commandline import CommandLine
from asi_lab.tui.dialogs import Confirm, Help
from tests.tui.labs import EACH_SIZE, SIZES, search, seen, toasts, told, until, use


def test_names_and_their_beginnings_find_a_verb():
    assert verbs.find("rerun").name == "rerun"
    assert verbs.find("rer").name == "rerun"
    assert verbs.find("stop").name == "stop"  # a whole name is one, also where others begin so
    assert "did you mean" in verbs.find("u")
    assert "did you mean pause" in verbs.find("puase")
    assert verbs.find("zzz") == "no command is called 'zzz'"
    assert len(verbs.BY_NAME) == len(verbs.VERBS)
    assert not set(verbs.BY_NAME) & set(PANES)


async def typed(pilot, words: str) -> None:
    await pilot.press("colon")
    pilot.app.query_one(CommandLine).value = words  # as if it were typed, in less time
    await pilot.press("enter")
    await pilot.pause()


@pytest.fixture
def at_work(own, monkeypatch) -> Lab:
    """A lab on which, as far as can be seen, an engine is at work."""
    search(own, 3)
    monkeypatch.setattr(Lab, "engine_pid", lambda self: 1)
    return own


def given(lab: Lab) -> list[tuple[str, int | None, str]]:
    return [(c.action, c.candidate, c.text) for _, c in commands.pending(lab.commands) if c is not None]


@pytest.mark.parametrize("size", EACH_SIZE)
def test_orders_are_given_by_name(at_work, size):
    async def script(app, pilot) -> None:
        await typed(pilot, "2")
        assert app.selected == 2
        for words in (
            "idea two time scales",
            "pin",
            "pin 0001",
            "unpin",
            "ban 1",
            "unban 1",
            "rerun",
            "rel 2",
        ):
            await typed(pilot, words)
        for words in ("tag good gate", "untag gate", "comment look again"):
            await typed(pilot, words)

    use(at_work, size, script)
    assert given(at_work) == [
        ("idea", None, "two time scales"),
        ("pin", 2, ""),
        ("pin", 1, ""),
        ("unpin", None, ""),
        ("ban", 1, ""),
        ("unban", 1, ""),
        ("rerun", 2, ""),
        ("release", 2, ""),
        ("tag", 2, "good gate"),
        ("untag", 2, "gate"),
        ("comment", 2, "look again"),
    ]


@pytest.mark.parametrize("size", EACH_SIZE)
def test_orders_are_given_by_keys(at_work, size):
    async def script(app, pilot) -> None:
        await typed(pilot, "2")
        await pilot.press("P", "B", "R")
        await pilot.press("i", *"new", "enter", "t", *"good", "enter", "c", *"why", "enter")
        await pilot.pause(0.1)

    use(at_work, size, script)
    assert given(at_work) == [
        ("pin", 2, ""),
        ("ban", 2, ""),
        ("rerun", 2, ""),
        ("idea", None, "new"),
        ("tag", 2, "good"),
        ("comment", 2, "why"),
    ]


def test_without_an_engine_orders_are_carried_out_and_taken_back_by_the_same_key(own):
    search(own, 3)

    async def script(app, pilot) -> None:
        popped, answers = toasts(app), []
        await typed(pilot, "2")
        for key, words in (
            ("P", "candidate 2 is pinned"),
            ("P", "candidate 2 is unpinned"),
            ("B", "candidate 2 is banned"),
            ("B", "candidate 2 may be drawn again"),
        ):
            await pilot.press(key)
            await until(pilot, lambda words=words: words in app.snapshot.events[-1].message, 30)
            await pilot.pause(1.2)  # the answer is shown once, as an event, also by the next look
            answers.append(app.snapshot.events[-1].message)
            assert popped == answers
        await typed(pilot, "tag -- odd")
        await until(pilot, lambda: "a tag is of a-z" in popped[-1], 30)
        assert told(app) == []
        await typed(pilot, "tag promising")
        await until(pilot, lambda: app.snapshot.notes.get(2), 30)
        await pilot.press("2")
        await until(pilot, lambda: "#promising" in seen(app))
        await typed(pilot, "filter promising")
        await pilot.pause(0.2)
        assert [row.key for row in app.query_one("#table").rows] == [2]
        await pilot.press("3")
        await until(pilot, lambda: "#promising" in seen(app))

    use(own, SIZES[1], script)


@pytest.mark.parametrize("size", EACH_SIZE)
def test_panes_lists_and_looks_are_commanded(lab, size):
    async def script(app, pilot) -> None:
        for name in PANES:
            await typed(pilot, name)
            assert app.pane.id == name
        await typed(pilot, "go best")
        best = app.snapshot.board.candidates[0].id
        assert app.selected == best
        await typed(pilot, "0003")
        assert app.selected == 3
        await typed(pilot, "sort loss")
        assert app._panes["candidates"].order == "loss"
        await typed(pilot, "sort nothing")
        assert any("There is no order 'nothing'" in words for words in told(app))
        await typed(pilot, "filter 0005")
        assert [row.key for row in app.query_one("#table").rows] == [5]
        await typed(pilot, "filter")
        assert len(app.query_one("#table").rows) == 9
        await typed(pilot, "mark 4")
        await typed(pilot, "mark")
        assert app.marks == (4, 3)
        await typed(pilot, "mark 4")
        assert app.marks == (3,)
        await typed(pilot, "theme textual-light")
        assert app.theme == "textual-light"
        await typed(pilot, "copy-path")
        assert app.clipboard == str(lab.trial("0003"))
        await typed(pilot, "help")
        assert isinstance(app.screen, Help)
        assert "Commands, after a colon" in seen(app) or app.screen.query("VerticalScroll")
        await pilot.press("escape")
        await typed(pilot, "quit")
        assert app.return_value == 0

    use(lab, size, script)


def test_what_is_typed_wrong_is_told(lab):
    async def script(app, pilot) -> None:
        for words, answer in (
            ("nonsense", "no command is called 'nonsense'"),
            ("99", "There is no candidate 99"),
            ("go", "go ID: select a candidate"),
            ("pin x1", "There is no candidate x1"),
            ("theme [/b]", "There is no theme '[/b]'"),
            ("idea", "idea TEXT: a note"),
            ("engine-log", "no engine was started from here"),
        ):
            await typed(pilot, words)
            assert any(answer in said for said in told(app)), (words, told(app))
        await typed(pilot, "")
        assert app.return_code is None

    use(lab, SIZES[0], script)


def test_stopping_is_confirmed(at_work):
    async def script(app, pilot) -> None:
        await typed(pilot, "stop-now")
        assert isinstance(app.screen, Confirm)
        await pilot.press("enter", "escape")
        await pilot.pause(0.1)
        assert given(at_work) == []
        await typed(pilot, "stop")
        await pilot.press("y")
        await pilot.pause(0.1)
        assert given(at_work) == [("stop", None, "")]

    use(at_work, SIZES[0], script)


def test_the_line_completes_recalls_and_closes(lab):
    async def script(app, pilot) -> None:
        line = app.query_one(CommandLine)
        await pilot.press("colon", *"rer")
        await pilot.pause(0.2)
        await pilot.press("tab")
        assert line.value == "rerun "
        await pilot.press("escape")
        await pilot.pause(0.1)
        assert not line.has_class("-shown")
        assert app.focused is not line
        await typed(pilot, "sort loss")
        await typed(pilot, "go 1")
        await pilot.press("colon", "up", "up")
        assert line.value == "sort loss"
        await pilot.press("down", "down")
        assert line.value == ""
        await pilot.press("escape", "1")
        await pilot.pause(0.1)
        assert app.pane.id == "overview"

    use(lab, SIZES[0], script)


def test_the_palette_lists_panes_and_commands(lab):
    async def script(app, pilot) -> None:
        found = {command.title for command in app.get_system_commands(app.screen)}
        assert {"curves", "rerun [id]", "idea TEXT", "stop-now"} <= found
        await pilot.press("ctrl+p")
        await pilot.pause(0.3)
        await pilot.press(*"lineage", "enter")
        await until(pilot, lambda: app.pane.id == "lineage")

    use(lab, SIZES[0], script)
