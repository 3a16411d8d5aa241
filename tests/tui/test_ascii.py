"""Drawing without any sign beyond ASCII."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.segment import Segment
from textual.color import Color

from asi_lab.common.text import plain
from asi_lab.tui import themes
from asi_lab.tui.ascii import Ascii, drawn
from asi_lab.tui.linetable import LineTable
from asi_lab.tui.preferences import Preferences
from tests.tui.labs import EACH_SIZE, SIZES, use


@given(st.text())
def test_it_is_ascii_and_as_wide_as_before(text):
    text = plain(text, multiline=True)
    found = drawn(text)
    assert found.isascii()
    if "\n" not in text and "\t" not in text:
        assert len(found) == sum(cell_len(sign) for sign in text)


def test_signs_have_likenesses():
    assert drawn("│─┌●✗★▶⠀⣿é漢±") == "|-+*x*> #e??~"


def test_only_what_is_not_ascii_is_replaced():
    found = Ascii().apply([Segment("plain"), Segment("┃")], Color(0, 0, 0))
    assert [segment.text for segment in found] == ["plain", "|"]


@pytest.mark.parametrize("size", EACH_SIZE)
def test_every_pane_can_be_drawn_so(lab, size):
    async def script(app, pilot) -> None:
        for number in range(1, 9):
            await pilot.press(str(number))
            await pilot.pause(0.2)
            filtered = [
                strip.apply_filter(app.get_line_filters()[-1], Color(0, 0, 0)) for strip in strips(app)
            ]
            assert "".join(strip.text for strip in filtered).isascii()

    use(lab, size, script, preferred=Preferences(ascii=True))


def strips(app):
    return app.screen._compositor.render_strips(app.size)


def test_without_colours_no_colour_is_asked_for(lab, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")

    async def script(app, pilot) -> None:
        assert app.theme == themes.MONOCHROME
        for number in range(1, 9):
            await pilot.press(str(number))
            await pilot.pause(0.1)
            for strip in strips(app):
                for line_filter in app.get_line_filters():
                    strip = strip.apply_filter(line_filter, Color(0, 0, 0))
                for segment in strip:
                    style = segment.style
                    assert style is None or style.color is None or style.color.is_default, segment
        await pilot.press("2")
        await pilot.pause(0.2)
        table = app.query_one("#table", LineTable)
        (chosen,) = [y for y, row in enumerate(table.rows) if row.key == table.selected]
        assert next(iter(table.render_line(chosen + 1))).style.reverse  # seen without colours too

    use(lab, SIZES[0], script)


@pytest.mark.parametrize("name", ["colour-blind", "colour-blind-light", "textual-light", "ansi-dark"])
def test_themes_can_be_worn(lab, name):
    async def script(app, pilot) -> None:
        assert app.theme == name
        for number in range(1, 9):
            await pilot.press(str(number))
            await pilot.pause(0.1)
        own = themes.TERMINALS.get(name)
        assert own is None or app.ansi_theme is own

    use(lab, SIZES[0], script, preferred=Preferences(theme=name))
