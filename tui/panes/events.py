"""All events of the lab, filtered by how serious they are."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from asi_lab.events import Event
from asi_lab.tui.linetable import Column, LineTable, Row
from asi_lab.tui.panes.pane import Pane
from asi_lab.tui.snapshot import Snapshot

COLUMNS = (Column("time", 8), Column("kind", 16), Column("#", 4), Column("message", 0))
STYLES = {"error": "bold red", "warning": "yellow", "best": "bold green", "repair": "yellow"}
SERIOUS = ("error", "warning", "repair")
LEVELS: dict[str, Callable[[Event], bool]] = {
    "all": lambda event: True,
    "without states": lambda event: event.kind not in ("candidate_state", "commit", "index"),
    "warnings and errors": lambda event: event.kind in SERIOUS,
}


class Events(Pane):
    """A table that follows the newest event as long as that is selected."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("f", "level", "Filter")]

    def __init__(self) -> None:
        super().__init__(id="events")
        self.level = "all"
        self._snapshot: Snapshot | None = None

    def compose(self) -> ComposeResult:
        """The table."""
        yield LineTable(COLUMNS, id="log", empty="Nothing has happened yet.")

    def begin(self) -> None:
        """The keys go to the table."""
        self.query_one(LineTable).focus()

    def show(self, snapshot: Snapshot) -> None:
        """Add what is new."""
        before, self._snapshot = self._snapshot, snapshot
        if before is None or before.events is not snapshot.events:
            self._fill()

    def on_line_table_selected(self, event: LineTable.Selected) -> None:
        """The candidate of an event is selected everywhere."""
        assert self._snapshot is not None
        found = next((e for e in self._snapshot.events if e.seq == event.key), None)
        if found is not None and found.candidate is not None:
            self.lab_app.selected = found.candidate

    def action_level(self) -> None:
        """Show fewer kinds, or all again."""
        names = list(LEVELS)
        self.level = names[(names.index(self.level) + 1) % len(names)]
        self.notify(f"events: {self.level}", markup=False)
        self._fill()

    def _fill(self) -> None:
        if self._snapshot is None:
            return
        table = self.query_one(LineTable)
        follows = not table.rows or table.selected == table.rows[-1].key
        table.show([_row(event) for event in self._snapshot.events if LEVELS[self.level](event)])
        if follows and table.rows:
            table.select(table.rows[-1].key)


def _row(event: Event) -> Row:
    clock = time.strftime("%H:%M:%S", time.localtime(event.time))
    number = "" if event.candidate is None else f"{event.candidate:04d}"
    return Row(event.seq, (clock, event.kind, number, event.message), STYLES.get(event.kind, ""))
