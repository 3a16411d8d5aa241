"""Long texts: only lines in view are drawn, and what is read stays where it is."""

from __future__ import annotations

import asyncio

from rich.table import Table
from rich.text import Text
from textual.app import App

from asi_lab.tui.lines import Lines, split


def shown(script) -> None:
    class Host(App[None]):
        def compose(self):
            yield Lines(id="lines")

    async def run() -> None:
        app = Host()
        async with app.run_test(size=(40, 10)) as pilot:
            await script(app.query_one(Lines), pilot)

    asyncio.run(run())


def strip(lines: Lines, y: int) -> str:
    return lines.render_line(y).text


def test_lines_scroll_both_ways():
    async def script(lines, pilot) -> None:
        lines.show([Text(f"{number:03d} " + "x" * 60 + "end") for number in range(100)])
        lines.focus()
        await pilot.pause()
        assert strip(lines, 0).startswith("000 xxx")
        assert len(lines._strips) <= 12  # those in view alone were made
        await pilot.press("j", "j", "k")
        assert strip(lines, 0).startswith("001")
        await pilot.press("G")
        await pilot.pause()
        assert strip(lines, 0).startswith("091") or strip(lines, 0).startswith("090")
        assert lines.is_at_end
        await pilot.press("g", "space")
        await pilot.pause()
        assert int(strip(lines, 0)[:3]) > 5
        for _ in range(40):
            await pilot.press("right")
        await pilot.pause()
        assert "end" in strip(lines, 0)
        lines.show([Text("other")])
        assert strip(lines, 0).startswith("other")
        assert strip(lines, 1).strip() == ""

    shown(script)


def test_what_is_rendered_is_fitted_to_the_width_and_kept_in_place():
    async def script(lines, pilot) -> None:
        table = Table("key", "value")
        for number in range(30):
            table.add_row(str(number), "word " * 20)
        lines.render_in(table)
        await pilot.pause()
        assert all(len(strip(lines, y)) <= 40 for y in range(10))
        lines.scroll_to(y=7, animate=False)
        await pilot.pause()
        before = strip(lines, 0)
        lines.render_in(table, keep=True)
        await pilot.pause()
        assert strip(lines, 0) == before
        narrow = lines._count
        await pilot.resize_terminal(80, 10)
        await pilot.pause(0.2)
        assert lines._count < narrow
        lines.render_in(Text("short"))
        assert lines.text == "short"

    shown(script)


def test_a_text_is_split_into_lines_without_breaks_and_tabs():
    assert [line.plain for line in split(Text("a\n\n\tb\n"))] == ["a", "", "    b", ""]
