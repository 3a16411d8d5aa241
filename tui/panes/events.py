"""All events of the lab, filtered by how serious they are."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from asi_lab.events import Event
from asi_lab.tui.linetable import Column, LineTable, Row
from asi_lab.tui.panes.pane import ListPane, following
from asi_lab.tui.snapshot import Snapshot

COLUMNS = (Column("time", 8), Column("kind", 16), Column("#", 4), Column("message", 0))
STYLES = {"error": "bold red", "warning": "yellow", "best": "bold green", "repair": "yellow"}
SERIOUS = ("error", "warning", "repair")
LEVELS: dict[str, Callable[[Event], bool]] = {
    "all": lambda event: True,
    "without states": lambda event: event.kind not in ("candidate_state", "commit", "index"),
    "warnings and errors": lambda event: event.kind in SERIOUS,
}


class Events(ListPane):
    """A table that follows the newest event as long as that is selected."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("f", "level", "Filter")]

    def __init__(self) -> None:
        super().__init__(id="events")
        self.level = "all"

    def compose(self) -> ComposeResult:
        """The table."""
        yield LineTable(COLUMNS, id="log", empty="Nothing has happened yet.")

    def listed(self, snapshot: Snapshot) -> object:
        """The events."""
        return snapshot.events

    def select(self, candidate_id: int | None) -> None:
        """Events stay where they are."""

    def chosen(self, key: int) -> None:
        """The candidate of an event is selected everywhere."""
        assert self.snapshot is not None
        found = next((e for e in self.snapshot.events if e.seq == key), None)
        if found is not None and found.candidate is not None:
            self.lab_app.selected = found.candidate

    def action_level(self) -> None:
        """Show fewer kinds, or all again."""
        self.level = following(LEVELS, self.level)
        self.notify(f"events: {self.level}", markup=False)
        self.refill()

    def fill(self, snapshot: Snapshot) -> None:
        """Show the events of the level, and follow the newest where that was selected."""
        table = self.table
        follows = not table.rows or table.selected == table.rows[-1].key
        table.show([_row(event) for event in snapshot.events if LEVELS[self.level](event)])
        if follows and table.rows:
            table.select(table.rows[-1].key)


def _row(event: Event) -> Row:
    clock = time.strftime("%H:%M:%S", time.localtime(event.time))
    number = "" if event.candidate is None else f"{event.candidate:04d}"
    return Row(event.seq, (clock, event.kind, number, event.message), STYLES.get(event.kind, ""))
