"""Thousands of lines of styled text of which only those in view are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.console import RenderableType
from rich.segment import Segment
from rich.text import Text
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

LEAST_WIDTH = 20


class Lines(ScrollView, can_focus=True):
    """Lines that can be scrolled both ways: texts, or something that was rendered to the width there is."""

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
        self._lines: Sequence[Text] = ()
        self._rendered: RenderableType | None = None
        self._strips: dict[int, Strip] = {}
        self._count = self._width = 0

    def show(self, lines: Sequence[Text]) -> None:
        """Take texts without line breaks, and go to the first."""
        self._lines, self._rendered, self._strips, self._count = lines, None, {}, len(lines)
        self.virtual_size = Size(max((line.cell_len for line in lines), default=0), len(lines))
        self.scroll_to(0, 0, animate=False)
        self.refresh()

    def render_in(self, what: RenderableType, *, keep: bool = False) -> None:
        """Render something to the width there is; what is read stays where it is if it is to be kept."""
        self._lines, self._rendered = (), what
        self._render_again()
        if not keep:
            self.scroll_to(0, 0, animate=False)

    def on_resize(self) -> None:
        """Render again, to another width."""
        if self._rendered is not None and self._width != self._wanted_width:
            self._render_again()

    @property
    def _wanted_width(self) -> int:
        """The width with a scrollbar, whether there is one already or not."""
        return max(
            LEAST_WIDTH,
            self.outer_size.width - self.styles.gutter.width - self.styles.scrollbar_size_vertical,
        )

    @property
    def is_at_end(self) -> bool:
        """Whether the last line is in view."""
        return self.scroll_offset.y >= self.max_scroll_y - 1

    @property
    def text(self) -> str:
        """All lines, without styles."""
        if self._rendered is None:
            return "\n".join(line.plain for line in self._lines)
        return "\n".join(self._strips[place].text.rstrip() for place in range(self._count))

    def render_line(self, y: int) -> Strip:
        """A line as far as it is in view."""
        place, left, width = y + self.scroll_offset.y, self.scroll_offset.x, self.size.width
        if place >= self._count:
            return Strip.blank(width, self.rich_style)
        strip = self._strips.get(place)
        if strip is None:
            line = self._lines[place]
            console = self.app.console
            segments = Segment.apply_style(line.render(console), console.get_style(line.style))
            strip = self._strips[place] = Strip(segments, line.cell_len)
        return strip.crop_extend(left, left + width, self.rich_style).apply_style(self.rich_style)

    def notify_style_update(self) -> None:
        """Draw again in other colours."""
        super().notify_style_update()
        if self._rendered is None:
            self._strips = {}

    def _render_again(self) -> None:
        console, width = self.app.console, self._wanted_width
        assert self._rendered is not None
        rendered: list[list[Segment]] = console.render_lines(
            self._rendered, console.options.update(width=width, height=None), pad=False
        )
        self._strips = {place: Strip(line) for place, line in enumerate(rendered)}
        self._count, self._width = len(rendered), width
        self.virtual_size = Size(width, self._count)
        self.refresh()


def split(text: Text) -> list[Text]:
    """A text as lines."""
    lines = list(text.split("\n", allow_blank=True))
    for line in lines:
        line.expand_tabs(4)
    return lines
