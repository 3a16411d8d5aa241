"""Diffs by lines: unified and side by side, by pieces and by files."""

from __future__ import annotations

import difflib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text

from asi_lab.tui.lines import Lines
from asi_lab.tui.panes import diff
from tests.tui.labs import EACH_SIZE, seen, use


def texts(lines):
    return [Text(line) for line in lines]


LINES = st.lists(st.sampled_from(["a", "b", "c", "def f(x):", ""]), max_size=30)


@given(LINES, LINES)
def test_pairs_hold_what_a_unified_diff_holds(before, after):
    wanted = [
        line
        for line in list(difflib.unified_diff(before, after, n=diff.CONTEXT, lineterm=""))[2:]
        if not line.startswith("@@")
    ]
    found = [pair for pair in diff._pairs(texts(before), texts(after)) if pair.sign != "@"]
    left = [pair.left[1].plain for pair in found if pair.left]
    right = [pair.right[1].plain for pair in found if pair.right]
    assert sorted(left) == sorted(line[1:] for line in wanted if line[0] in " -")
    assert sorted(right) == sorted(line[1:] for line in wanted if line[0] in " +")
    assert left == [before[pair.left[0] - 1] for pair in found if pair.left]
    assert right == [after[pair.right[0] - 1] for pair in found if pair.right]


def test_a_long_line_is_cut_into_pieces():
    assert [piece.plain for piece in diff._cut(Text("abcdefg"), 3)] == ["abc", "def", "g"]
    assert [piece.plain for piece in diff._cut(Text(""), 3)] == [""]


@pytest.mark.parametrize("size", EACH_SIZE)
def test_views_pieces_files_and_others_to_compare_with(lab, size):
    async def script(app, pilot) -> None:
        lines = app.query_one("#diff").query_one(Lines)
        app.selected = 5
        await pilot.press("5")
        await pilot.pause(0.1)
        unified = lines.text
        assert "\n- " in unified
        assert "\n+ " in unified
        assert "│" not in unified
        await pilot.press("v")
        await pilot.pause(0.1)
        assert "│" in lines.text
        width = lines.size.width
        assert all(len(line) <= width for line in lines.text.split("\n"))
        await pilot.press("v", "right_square_bracket")
        await pilot.pause(0.1)
        first = lines.scroll_offset.y
        assert lines.text.split("\n")[first].startswith("@@") or lines.is_at_end
        await pilot.press("right_square_bracket", "left_square_bracket")
        await pilot.pause(0.1)
        for name in ("motivation.md", "analysis.md", "metrics.json", "architecture.py"):
            await pilot.press("right_curly_bracket")
            await pilot.pause(0.1)
            assert f"{name}: 0005" in seen(app)
        await pilot.press("left_curly_bracket")
        await pilot.pause(0.1)
        assert "metrics.json: 0005" in seen(app)
        await pilot.press("right_curly_bracket")
        app.mark("3")
        for against in ("seed", "best", "0003", "nothing", "parent"):
            await pilot.press("b")
            await pilot.pause(0.1)
            title = seen(app).split("\n")[2]
            assert against == "nothing" or against in title
        assert app.query_one("#diff")._text.startswith("--- ")
        app.selected = 0
        await pilot.pause(0.1)
        assert "there is no parent to compare with" in seen(app)

    use(lab, size, script)
