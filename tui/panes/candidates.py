"""All candidates in a table that can be sorted and filtered, and everything about the selected one."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ClassVar

import msgspec
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.timer import Timer

from asi_lab.common.text import plain
from asi_lab.lab.steering import Note
from asi_lab.lab.summary import Summary
from asi_lab.records import CandidateState
from asi_lab.tui.field import Field
from asi_lab.tui.lines import Lines
from asi_lab.tui.linetable import LineTable, TableColumn, TableRow
from asi_lab.tui.panes.pane import ListPane, following
from asi_lab.tui.snapshot import Snapshot
from asi_lab.view import page, tables
from asi_lab.view.leaderboard import Row as Place
from asi_lab.view.page import Dossier

COLUMNS = (
    TableColumn("#", 5, right=True),
    TableColumn("state", 14),
    TableColumn("name", 0),
    TableColumn("loss", 8, right=True),
    TableColumn("gain", 8, right=True),
    TableColumn("in sd", 6, right=True),
    TableColumn("judge", 5, right=True),
    TableColumn("fitness", 8, right=True),
)
NO_NOTE = Note()
REST_SECONDS = 0.1
"""How long a selection rests before its details are shown."""

ORDERS: dict[str, Callable[[Summary], float]] = {
    "id": lambda s: -s.id,
    "fitness": lambda s: -(s.merit if s.merit is not None else -1.0),
    "loss": lambda s: s.loss if s.loss is not None else float("inf"),
    "judge": lambda s: -(s.judge if s.judge is not None else -1.0),
    "name": lambda s: 0.0,
}
"""Orders of the table, each by a figure that is least for the first row; the newest come first by id."""


def glyph(state: CandidateState) -> str:
    """A sign beside the word, so that colour is never alone."""
    if state is CandidateState.DONE:
        return "●"
    return "✗" if state.is_failure else "◌"


class Candidates(ListPane):
    """The table, its filter, and the details."""

    DEFAULT_CSS = """
    Candidates { layout: horizontal; }
    Candidates #list { width: 1fr; }
    Candidates #filter { display: none; height: 3; }
    Candidates #filter.-shown { display: block; }
    Candidates #details { width: 1fr; display: none; border-left: solid $primary-muted; padding: 0 1; }
    Candidates.-open #list { display: none; }
    Candidates.-open #details { display: block; border-left: none; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "order", "Sort", id="candidates.sort"),
        Binding("slash", "filter", "Filter", id="candidates.filter"),
        Binding("escape", "back", "Back", show=False, id="candidates.back"),
    ]
    KEPT = ("order",)

    def __init__(self) -> None:
        super().__init__(id="candidates")
        self.order, self.wanted = "id", ""
        self._shown: Dossier | None = None
        self._timer: Timer | None = None

    def compose(self) -> ComposeResult:
        """Filter and table at the left, details at the right or alone."""
        with VerticalScroll(id="list", can_focus=False):
            yield Field(
                self.begin,
                placeholder="words of name, state, verdict, id, model, arm or tags; Esc clears",
                id="filter",
            )
            yield LineTable(COLUMNS, id="table", chosen=self.chosen, opened=self.opened)
        yield Lines(id="details")

    def on_mount(self) -> None:
        """Filter as one types."""
        self.watch(self.query_one(Field), "value", self._narrow, init=False)

    def show(self, snapshot: Snapshot) -> None:
        """The table, and the details, which may have changed."""
        super().show(snapshot)
        self._detail(self.lab_app.selected)

    def select(self, candidate_id: int | None) -> None:
        """Show another candidate; its details once the selection rests."""
        super().select(candidate_id)
        if self._timer is not None:
            self._timer.stop()
        self._timer = self.set_timer(REST_SECONDS, lambda: self._detail(self.lab_app.selected))

    def opened(self, key: int) -> None:
        """Give the whole pane to the details."""
        self.lab_app.selected = key
        self.add_class("-open")
        self._detail(key)
        self.screen.set_focus(self.query_one("#details"))

    def action_order(self) -> None:
        """Sort by the next figure; the same candidate stays selected."""
        self.sort("")

    def sort(self, order: str) -> None:
        """Sort by a figure, by the next one where none is named."""
        if order not in ORDERS:
            if order:
                self.lab_app.tell(f"There is no order {order!r}: {', '.join(ORDERS)}.", "warning")
                return
            order = following(ORDERS, self.order)
        self.order = order
        self.notify(f"sorted by {order}", markup=False)
        self.refill()

    def filter(self, words: str) -> None:
        """Show rows that hold these words; all where there are none."""
        field = self.query_one(Field)
        field.set_class(bool(words.strip()), "-shown")
        field.value = words.strip()

    def action_filter(self) -> None:
        """Type words that rows must hold."""
        self.remove_class("-open")
        field = self.query_one(Field)
        field.add_class("-shown")
        field.select_all()
        self.screen.set_focus(field)

    def action_back(self) -> None:
        """Close the details, else clear the filter."""
        if self.has_class("-open"):
            self.remove_class("-open")
        else:
            field = self.query_one(Field)
            field.value = ""
            field.remove_class("-shown")
        self.begin()

    def _narrow(self, words: str) -> None:
        self.wanted = words.strip().lower()
        self.refill()

    def fill(self, snapshot: Snapshot) -> None:
        """Show the rows that match, in order."""
        found, notes = list(snapshot.summaries), snapshot.notes
        places = {row.id: row for row in snapshot.board.candidates} if snapshot.board else {}
        if self.wanted:
            found = [s for s in found if self._matches(s, places.get(s.id), notes.get(s.id, NO_NOTE).tags)]
        found.sort(key=(lambda s: s.name) if self.order == "name" else ORDERS.get(self.order, ORDERS["id"]))
        table, marks = self.table, self.lab_app.marks
        rows = []
        for s in found:
            tags = notes[s.id].tags if s.id in notes else ()
            cells = functools.partial(_cells, s, places.get(s.id), s.id in marks, tags)
            rows.append(TableRow(s.id, cells, "dim" if s.state.is_failure else ""))
        empty = "No candidates yet: the baselines come first."
        if snapshot.summaries:
            empty = f"Nothing matches the filter '{plain(self.wanted, limit=40)}': Esc clears it."
        table.show(rows, empty)
        table.select(self.lab_app.selected)

    def _matches(self, summary: Summary, place: Place | None, tags: tuple[str, ...]) -> bool:
        words = (
            f"{summary.id:04d}",
            summary.state.value,
            place.verdict if place else "",
            summary.name,
            summary.model,
            summary.researcher,
            summary.arm or "",
            *tags,
        )
        text = " ".join(words).lower()
        return all(word in text for word in self.wanted.split())

    def _detail(self, candidate_id: int | None) -> None:
        lines = self.query_one("#details", Lines)
        if not lines.display:
            return
        known = None if candidate_id is None else self.lab_app.reader.dossier(candidate_id)
        if known is None:
            self._shown = None
            lines.render_in(Text(self.missing(candidate_id)))
            return
        told = msgspec.structs.replace(known, baselines=None)
        if self._shown == told:
            return
        before, self._shown = self._shown, told
        shown = page.page(known, tables.shown(self.lab_app.lab.lineage))
        same = before is not None and before.candidate.id == known.candidate.id
        lines.render_in(shown, keep=same)


def _cells(s: Summary, place: Place | None, marked: bool, tags: tuple[str, ...]) -> tuple[str, ...]:
    """`place` is the candidate's row on the leaderboard: its gain, also in units of the noise, with a star
    where it beats the bar beyond noise. What is claimed of it stands in place of its state. Names are shown
    without what all begin with."""
    own = s.name.removeprefix(tables.PREFIX)
    name = own if own == s.name else f"…{own}"
    units = "" if place is None or place.gain_in_noise is None else f"{place.gain_in_noise:+.1f}"
    return (
        f"{s.id:04d}",
        f"{glyph(s.state)} {(place and place.verdict) or s.state.value}",
        f"{'◆ ' if marked else ''}{''.join(f'#{tag} ' for tag in tags)}{plain(name)}",
        "" if s.loss is None else f"{s.loss:.4f}",
        "" if place is None else f"{place.gain:+.2%}",
        f"{units}{'*' if place is not None and place.beats_bar else ' '}",
        "" if s.judge is None else f"{s.judge:.1f}",
        "" if s.fitness is None else f"{s.fitness:.4f}",
    )
