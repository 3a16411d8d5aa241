"""What a user prefers and what is remembered."""

from __future__ import annotations

import pytest
from textual.binding import Binding

from asi_lab.errors import ConfigError
from asi_lab.tui import preferences
from asi_lab.tui.app import scopes
from asi_lab.tui.preferences import Memory, Preferences
from tests.tui.labs import SIZES, told, until, use


def write(text: str) -> None:
    preferences.config_file().parent.mkdir(parents=True, exist_ok=True)
    preferences.config_file().write_text(text)


def test_without_a_file_there_are_no_preferences():
    assert preferences.load() == Preferences()
    assert preferences.recall() == Memory()


def test_a_file_is_read():
    write('theme = "nord"\nascii = true\n[keys]\npause = "f5"\n')
    assert preferences.load() == Preferences("nord", True, {"pause": "f5"})


@pytest.mark.parametrize("text", ["theme = 3", "colour = 'red'", "[keys", "[keys]\npause = 1", "\xff\x00"])
def test_a_wrong_file_is_told_with_its_name(text):
    write(text)
    with pytest.raises(ConfigError, match=r"tui\.toml: expected"):
        preferences.load()


def test_what_is_remembered_comes_back_and_damage_is_forgotten():
    memory = Memory("nord", "curves", {"curves": {"axis": "tokens"}}, {"/lab": 5.0})
    preferences.remember(memory)
    assert preferences.recall() == memory
    (preferences.state_folder() / "tui.json").write_text("{")
    assert preferences.recall() == Memory()


def test_where_nothing_can_be_written_nothing_is_remembered(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    preferences.remember(Memory("nord"))
    assert preferences.recall() == Memory()
    with pytest.raises(OSError):
        preferences.copied("x")


def test_a_copy_is_for_the_user_alone_and_follows_no_link(tmp_path):
    file = preferences.copied("text \udc80")
    assert file.stat().st_mode & 0o777 == 0o600
    file.unlink()
    file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError):
        preferences.copied("text")
    assert not (tmp_path / "elsewhere").exists()


SCOPES = {
    "": [Binding("p", "do('pause')", id="pause"), Binding("q", "leave", id="quit")],
    "curves": [Binding("l", "log", id="curves.log"), Binding("p", "peak", id="curves.peak")],
}


def test_keys_are_taken_where_they_are_free():
    assert preferences.keymap({}, SCOPES) == {}
    wanted = {"pause": "f5,space", "curves.log": "k"}
    assert preferences.keymap(wanted, SCOPES) == wanted


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"pauze": "f5"}, "no command is called pauze"),
        ({"pause": "q"}, "q is wanted by pause and by quit|q is wanted by quit and by pause"),
        ({"curves.log": "q"}, "q is wanted by"),
        ({"pause": "l"}, "l is wanted by"),
        ({"pause": " "}, "pause: expected a key"),
    ],
)
def test_conflicts_are_reported(wanted, found):
    with pytest.raises(ConfigError, match=found):
        preferences.keymap(wanted, SCOPES)


def test_every_binding_of_the_application_can_be_rebound():
    for scope, bindings in scopes().items():
        for binding in bindings:
            assert binding.id, (scope, binding)
    ids = [binding.id for bindings in scopes().values() for binding in bindings]
    assert len(ids) == len(set(ids))


def test_a_key_of_ones_own_does_what_it_is_for(lab):
    async def script(app, pilot) -> None:
        await pilot.press("f5")
        assert any("No engine is at work" in words for words in told(app))
        before = len(app.notices)
        await pilot.press("p")
        assert len(app.notices) == before

    use(lab, SIZES[0], script, preferred=Preferences(keys={"pause": "f5"}))


def test_layout_and_theme_are_there_again(lab):
    async def change(app, pilot) -> None:
        await pilot.press("2", "s", "s", "4", "a", "l", "5", "v")
        await pilot.press("colon", *"theme nord", "enter")
        await until(pilot, lambda: app.theme == "nord")
        await pilot.press("4", "q")
        await pilot.pause()

    async def look(app, pilot) -> None:
        assert app.theme == "nord"
        assert app.pane.id == "curves"
        assert (app.pane.axis, app.pane.logarithmic) == ("tokens", True)
        assert app._panes["candidates"].order == "loss"
        assert app._panes["diff"].beside is True

    use(lab, SIZES[0], change)
    use(lab, SIZES[0], look)
    memory = preferences.recall()
    assert str(lab.path.resolve()) in memory.seen
    broken = {"curves": {"axis": 5, "logarithmic": "x"}, "diff": {"beside": 1}}
    preferences.remember(Memory("no such theme", "no such pane", broken))

    async def sound(app, pilot) -> None:
        assert app.pane.id == "overview"
        await pilot.press("4")
        assert (app.pane.axis, app.pane.logarithmic) == ("step", False)

    use(lab, SIZES[0], sound)


def test_a_theme_that_is_not_there_is_told(lab):
    async def script(app, pilot) -> None:
        assert any("no theme 'nordic'" in words for words in told(app))

    use(lab, SIZES[0], script, preferred=Preferences(theme="nordic"))
