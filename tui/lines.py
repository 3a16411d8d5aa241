"""Thousands of lines of styled text of which only those in view are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip


class Lines(ScrollView, can_focus=True):
    """Lines that can be scrolled both ways, each a `Text` without line breaks."""

    DEFAULT_CSS = "Lines { background: $surface; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("k", "scroll_up", "Up", show=False),
        Binding("j", "scroll_down", "Down", show=False),
        Binding("g", "scroll_home", "First", show=False),
        Binding("G", "scroll_end", "Last", show=False),
        Binding("space", "page_down", "Page down", show=False),
    ]

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.lines: Sequence[Text] = ()
        self._strips: dict[int, Strip] = {}

    def show(self, lines: Sequence[Text], *, keep: bool = False) -> None:
        """Take other lines, from the first one on, unless what is read is to be kept where it is."""
        self.lines, self._strips = lines, {}
        self.virtual_size = Size(max((line.cell_len for line in lines), default=0), len(lines))
        if not keep:
            self.scroll_to(0, 0, animate=False)
        self.refresh()

    @property
    def is_at_end(self) -> bool:
        """Whether the last line is in view."""
        return self.scroll_offset.y >= self.max_scroll_y - 1

    def render_line(self, y: int) -> Strip:
        """A line as far as it is in view."""
        place, left, width = y + self.scroll_offset.y, self.scroll_offset.x, self.size.width
        if place >= len(self.lines):
            return Strip.blank(width, self.rich_style)
        strip = self._strips.get(place)
        if strip is None:
            line = self.lines[place]
            strip = self._strips[place] = Strip(line.render(self.app.console), line.cell_len)
        return strip.crop_extend(left, left + width, self.rich_style).apply_style(self.rich_style)

    def notify_style_update(self) -> None:
        """Draw again in other colours."""
        super().notify_style_update()
        self._strips = {}


def split(text: Text) -> list[Text]:
    """A text as lines."""
    lines = list(text.split("\n", allow_blank=True))
    for line in lines:
        line.expand_tabs(4)
    return lines
