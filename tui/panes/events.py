"""All events of the lab and all that was told here, filtered by how serious they are."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from asi_lab.common.text import plain
from asi_lab.events import Event
from asi_lab.tui.linetable import LineTable, TableColumn, TableRow
from asi_lab.tui.notices import Notice
from asi_lab.tui.panes.pane import ListPane, following
from asi_lab.tui.snapshot import Snapshot

COLUMNS = (TableColumn("time", 8), TableColumn("kind", 16), TableColumn("#", 4), TableColumn("message", 0))
STYLES = {"error": "bold red", "warning": "yellow", "best": "bold green", "repair": "yellow"}
SERIOUS = ("error", "warning", "repair")
SERIOUS_ALONE = "warnings and errors"
LEVELS: dict[str, Callable[[Event], bool]] = {
    "all": lambda event: True,
    "without states": lambda event: event.kind not in ("candidate_state", "commit", "index"),
    SERIOUS_ALONE: lambda event: event.kind in SERIOUS,
}


class Events(ListPane):
    """A table that follows the newest event as long as that is selected."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("f", "level", "Filter", id="events.filter")]
    KEPT = ("level",)

    def __init__(self) -> None:
        super().__init__(id="events")
        self.level = "all"
        self._told: tuple[Notice, ...] = ()

    def compose(self) -> ComposeResult:
        """The table."""
        yield LineTable(COLUMNS, id="log", chosen=self.chosen)

    def show(self, snapshot: Snapshot) -> None:
        """Show what is new."""
        told, self._told = self._told, self.lab_app.notices
        if told is not self._told:
            self.marked(snapshot)
        else:
            super().show(snapshot)

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
        wanted = LEVELS.get(self.level, LEVELS["all"])
        rows = [(event.time, _row(event)) for event in snapshot.events if wanted(event)]
        rows += [
            (notice.time, _told(-number, notice))
            for number, notice in enumerate(self.lab_app.notices, start=1)
            if self.level != SERIOUS_ALONE or notice.severity != "information"
        ]
        rows.sort(key=lambda timed: timed[0])
        empty = "Nothing has happened yet."
        if snapshot.events or self.lab_app.notices:
            empty = f"Nothing matches the filter '{self.level}': f changes it."
        table.show([row for _, row in rows], empty)
        if follows and table.rows:
            table.select(table.rows[-1].key)


def _told(key: int, notice: Notice) -> TableRow:
    """What was told here; its keys are below those of events."""
    cells = (_clock(notice.time), "told here", "", plain(notice.message))
    return TableRow(
        key, cells, "dim" if notice.severity == "information" else STYLES.get(notice.severity, "")
    )


def _clock(when: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(when))


def _row(event: Event) -> TableRow:
    def cells() -> tuple[str, str, str, str]:
        number = "" if event.candidate is None else f"{event.candidate:04d}"
        return _clock(event.time), event.kind, number, plain(event.message)

    return TableRow(event.seq, cells, STYLES.get(event.kind, ""))
