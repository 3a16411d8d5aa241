"""What all panes have in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, cast

from textual.containers import Container

from asi_lab.tui.linetable import LOADING, LineTable
from asi_lab.tui.snapshot import Snapshot

if TYPE_CHECKING:
    from asi_lab.tui.app import LabApp


class Pane(Container):
    """One view of the lab. `KEPT` are the attributes that are remembered from one look to the next."""

    KEPT: ClassVar[tuple[str, ...]] = ()
    DEFAULT_CSS = """
    Pane { layout: vertical; }
    Pane > * { min-height: 1; }
    """

    @property
    def lab_app(self) -> LabApp:
        """The application."""
        from asi_lab.tui.app import LabApp

        return cast(LabApp, self.app)

    def show(self, snapshot: Snapshot) -> None:
        """Show another state of the lab. Called about once a second, and only while the pane is in view."""

    def select(self, candidate_id: int | None) -> None:
        """Another candidate was selected, here or elsewhere."""

    def begin(self) -> None:
        """The pane comes into view, and takes the keys at once: the next may be typed already."""

    def marked(self, snapshot: Snapshot) -> None:
        """Other candidates are marked."""
        self.show(snapshot)

    @property
    def kept(self) -> dict[str, Any]:
        """The layout, for another look."""
        return {name: getattr(self, name) for name in self.KEPT}

    def restore(self, kept: Mapping[str, Any]) -> None:
        """Take over a layout of an earlier look, as far as it is one of this pane."""
        for name in self.KEPT:
            if name in kept and type(kept[name]) is type(getattr(self, name)):
                setattr(self, name, kept[name])

    def missing(self, number: int | None) -> str:
        """Why nothing is shown of a candidate."""
        if self.lab_app.snapshot is None:
            return LOADING
        if not self.lab_app.snapshot.summaries:
            return "There are no candidates yet."
        if number is None:
            return "No candidate is selected: go to 2 and choose one."
        return f"There is no candidate {number:04d} yet."

    def copied(self) -> tuple[str, str]:
        """What `y` copies here, and what that is."""
        number = self.lab_app.selected
        return ("", "") if number is None else (f"{number:04d}", "the candidate's id")


class ListPane(Pane):
    """A pane around one table, which is filled again only where what it lists has changed."""

    snapshot: Snapshot | None = None

    @property
    def table(self) -> LineTable:
        """The table."""
        return self.query_one(LineTable)

    def begin(self) -> None:
        """The keys go to the table."""
        self.screen.set_focus(self.table)

    def show(self, snapshot: Snapshot) -> None:
        """Fill the table again where anything changed."""
        before, self.snapshot = self.snapshot, snapshot
        if before is None or self.listed(before) != self.listed(snapshot):
            self.fill(snapshot)

    def select(self, candidate_id: int | None) -> None:
        """Go to another candidate."""
        self.table.select(candidate_id)

    def chosen(self, key: int) -> None:
        """A row was selected: share the selection."""
        self.lab_app.selected = key

    def marked(self, snapshot: Snapshot) -> None:
        """Fill the table again, with other marks."""
        self.snapshot = snapshot
        self.fill(snapshot)

    def listed(self, snapshot: Snapshot) -> object:
        """What of a snapshot stands in the table."""
        return snapshot.summaries, snapshot.notes, snapshot.status.steering

    def fill(self, snapshot: Snapshot) -> None:
        """Fill the table."""
        raise NotImplementedError

    def refill(self) -> None:
        """Fill the table again because it is to be shown otherwise."""
        if self.snapshot is not None:
            self.fill(self.snapshot)


def following(choices: Iterable[str], now: str) -> str:
    """The choice after this one; after the last, or where this is none of them, the first."""
    names = list(choices)
    return names[(names.index(now) + 1) % len(names)] if now in names else names[0]
