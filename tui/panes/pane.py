"""What all panes have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from textual.containers import Container

from asi_lab.tui.snapshot import Snapshot

if TYPE_CHECKING:
    from asi_lab.tui.app import LabApp


class Pane(Container):
    """One view of the lab."""

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
        """The pane comes into view."""

    def copied(self) -> tuple[str, str]:
        """What `y` copies here, and what that is."""
        number = self.lab_app.selected
        return ("", "") if number is None else (f"{number:04d}", "the candidate's id")
