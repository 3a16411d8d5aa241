"""A table of thousands of rows that draws only the lines in view.

The selection belongs to a row's key and not to its place: new rows and another order leave it where it is,
and what is being read does not move.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from asi_lab.common.text import one_line

LOADING = "Looking into the lab ..."
"""What stands in a table before it was filled."""
Told = Callable[[int], object]
"""Is told the key of a row."""


class TableRow:
    """One line: its key, its cells and its style. Cells that are given as a function are made when the line
    comes into view."""

    __slots__ = ("_cells", "key", "style")

    def __init__(self, key: int, cells: Sequence[str] | Callable[[], Sequence[str]], style: str = "") -> None:
        self.key, self._cells, self.style = key, cells, style

    @property
    def cells(self) -> Sequence[str]:
        """What stands in the line."""
        if callable(self._cells):
            self._cells = self._cells()
        return self._cells


class TableColumn:
    """A heading, a width in characters (0: the rest), and whether its cells stand at the right."""

    __slots__ = ("heading", "right", "width")

    def __init__(self, heading: str, width: int, *, right: bool = False) -> None:
        self.heading, self.width, self.right = heading, width, right


class LineTable(ScrollView, can_focus=True):
    """Rows by key, one of them selected."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"linetable--heading", "linetable--cursor"}
    DEFAULT_CSS = """
    LineTable { background: $surface; overflow-x: hidden; }
    LineTable > .linetable--heading { text-style: bold; color: $text-muted; }
    LineTable > .linetable--cursor { background: $primary-muted; }
    LineTable:focus > .linetable--cursor { background: $primary; color: $text; }
    LineTable:nocolor > .linetable--cursor { text-style: reverse; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Up", show=False),
        Binding("down,j", "move(1)", "Down", show=False),
        Binding("pageup", "page(-1)", "Page up", show=False),
        Binding("pagedown", "page(1)", "Page down", show=False),
        Binding("home,g", "end(0)", "First", show=False),
        Binding("end,G", "end(-1)", "Last", show=False),
        Binding("enter", "open", "Open", show=False),
    ]

    def __init__(
        self,
        columns: Sequence[TableColumn],
        *,
        id: str | None = None,
        chosen: Told = lambda key: None,
        opened: Told = lambda key: None,
    ) -> None:
        """`chosen` is told the key of a row that the user selects, `opened` that of one to be opened, both at
        once: the next key may be about it."""
        super().__init__(id=id)
        self.columns, self.chosen, self.opened = list(columns), chosen, opened
        self.empty = LOADING
        self.rows: list[TableRow] = []
        self._places: dict[int, int] = {}
        self.selected: int | None = None

    def show(self, rows: Sequence[TableRow], empty: str) -> None:
        """Take other rows. The selected one stays selected, and on the line of the screen where it was; where
        it is not among them, none is. `empty` stands there where there are no rows."""
        self.empty = empty
        before = self._places.get(self.selected) if self.selected is not None else None
        self.rows = list(rows)
        self._places = {row.key: place for place, row in enumerate(self.rows)}
        if self.selected not in self._places:
            self.selected = None
        self.virtual_size = Size(self.size.width, len(self.rows) + 1)
        after = self._places.get(self.selected) if self.selected is not None else None
        if before is not None and after is not None and before != after:
            self.scroll_to(y=max(0, self.scroll_offset.y + after - before), animate=False)
        self.refresh()

    def select(self, key: int | None) -> None:
        """Select a row from outside; it is brought into view."""
        if key in self._places and key != self.selected:
            self.selected = key
            self._bring_into_view()
            self.refresh()

    def action_move(self, by: int) -> None:
        """Select the row that stands `by` rows further down."""
        self._go(self._place() + by)

    def action_page(self, by: int) -> None:
        """Select a row one screen further down."""
        self._go(self._place() + by * max(1, self._height - 1))

    def action_end(self, place: int) -> None:
        """Select the first row (0) or the last (-1)."""
        self._go(place % len(self.rows) if self.rows else 0)

    def action_open(self) -> None:
        """Tell that the selected row is to be opened, the first where none is selected."""
        if self.selected is None:
            self._go(0)
        if self.selected is not None:
            self.opened(self.selected)

    def on_click(self, event: events.Click) -> None:
        """Select the row under the mouse; a second click opens it."""
        place = event.y - 1 + self.scroll_offset.y
        if event.y > 0 and 0 <= place < len(self.rows):
            self._go(place)
            if event.chain == 2:
                self.action_open()

    def on_resize(self) -> None:
        """Fit to another size, with the selected row in view."""
        self.virtual_size = Size(self.size.width, len(self.rows) + 1)
        self.call_after_refresh(self._bring_into_view)

    def render_line(self, y: int) -> Strip:
        """The heading, and below it the rows in view."""
        width = self.scrollable_content_region.width
        if y == 0:
            style = self.get_component_rich_style("linetable--heading")
            return self._strip([column.heading for column in self.columns], width, style)
        place = y - 1 + self.scroll_offset.y
        if place >= len(self.rows):
            words = Text(one_line(self.empty) if y == 2 and not self.rows else "")
            words.truncate(width, overflow="ellipsis", pad=True)
            return Strip([Segment(words.plain, self.rich_style)])
        row = self.rows[place]
        style = self.rich_style + Style.parse(row.style)
        if row.key == self.selected:
            style += self.get_component_rich_style("linetable--cursor")
        return self._strip(row.cells, width, style)

    def _strip(self, cells: Sequence[str], width: int, style: Style) -> Strip:
        taken = sum(column.width + 1 for column in self.columns)
        rest = max(8, width - taken)
        line = Text(no_wrap=True)
        for column, cell in zip(self.columns, cells, strict=True):
            text = Text(one_line(cell))
            room = column.width or rest
            text.truncate(room, overflow="ellipsis", pad=False)
            missing = " " * (room - text.cell_len)
            line.append(missing if column.right else "").append_text(text)
            line.append("" if column.right else missing).append(" ")
        line.truncate(width, pad=True)
        return Strip([Segment(line.plain, style)])

    @property
    def _height(self) -> int:
        """Rows in view."""
        return max(1, self.scrollable_content_region.height - 1)

    def _place(self) -> int:
        """Where the selected row stands; above the first where none is selected."""
        return -1 if self.selected is None else self._places[self.selected]

    def _go(self, place: int) -> None:
        if not self.rows:
            return
        row = self.rows[max(0, min(place, len(self.rows) - 1))]
        if row.key != self.selected:
            self.selected = row.key
            self._bring_into_view()
            self.refresh()
            self.chosen(row.key)

    def _bring_into_view(self) -> None:
        place, top, height = max(0, self._place()), self.scroll_offset.y, self._height
        if place < top:
            self.scroll_to(y=place, animate=False)
        elif place >= top + height:
            self.scroll_to(y=place - height + 1, animate=False)
