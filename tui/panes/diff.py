"""The code of the selected candidate against its parent, the seed or the best."""

from __future__ import annotations

from typing import ClassVar

from rich.console import RenderableType
from rich.syntax import Syntax
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widgets import Static

from asi_lab import facts
from asi_lab.records import SEED_ID, Candidate
from asi_lab.text import plain
from asi_lab.tui.panes.pane import Pane, following
from asi_lab.tui.snapshot import Snapshot

STYLES = {"+": "green", "-": "red", "@": "cyan"}
AGAINST = ("parent", "seed", "best", "nothing")


class Diff(Pane):
    """A unified diff, or the whole code."""

    DEFAULT_CSS = """
    Diff #title { height: 1; padding: 0 1; text-style: bold; }
    Diff #scroll { height: 1fr; padding: 0 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("b", "against", "Against")]

    def __init__(self) -> None:
        super().__init__(id="diff")
        self._against = "parent"
        self._best: int | None = None
        self._text = ""

    def compose(self) -> ComposeResult:
        """A title and the text."""
        yield Static(id="title", markup=False)
        with VerticalScroll(id="scroll", can_focus=True):
            yield Static(id="text")

    def begin(self) -> None:
        """The keys go to the text."""
        self.query_one("#scroll").focus()
        self.select(self.lab_app.selected)

    def show(self, snapshot: Snapshot) -> None:
        """Remember the best."""
        scored = [s for s in snapshot.summaries if s.fitness is not None and s.id != SEED_ID]
        self._best = max(scored, key=lambda s: s.fitness or 0.0).id if scored else None

    def select(self, candidate_id: int | None) -> None:
        """Show another candidate's code."""
        title, text = self._compared(candidate_id)
        self.query_one("#title", Static).update(title)
        self.query_one("#text", Static).update(text)

    def copied(self) -> tuple[str, str]:
        """The text in view."""
        return self._text, "the diff" if self._against != "nothing" else "the code"

    def action_against(self) -> None:
        """Compare with something else, or show the whole code."""
        self._against = following(AGAINST, self._against)
        self.select(self.lab_app.selected)

    def _compared(self, candidate_id: int | None) -> tuple[str, RenderableType]:
        found = None if candidate_id is None else self.lab_app.reader.candidate(candidate_id)
        if found is None or found.proposal is None:
            return "No candidate is selected: go to 2 and choose one.", Text()
        name = f"{found.id:04d} {plain(found.name, limit=60)}"
        self._text = found.proposal.code
        if self._against == "nothing":
            return name, Syntax(
                plain(found.proposal.code, multiline=True), "python", theme="ansi_dark", word_wrap=True
            )
        other = self._other(found)
        if other is None:
            return f"{name}: there is no {self._against} to compare with; b changes that.", Text()
        title = f"{other.id:04d} {plain(other.name, limit=60)} ({self._against}) -> {name}"
        self._text = facts.change(other, found, context=3)
        changed = plain(self._text, multiline=True)
        return title, _coloured(changed) if changed else Text("The same code.")

    def _other(self, found: Candidate) -> Candidate | None:
        number = {"parent": found.parent, "seed": SEED_ID, "best": self._best}[self._against]
        return None if number is None or number == found.id else self.lab_app.reader.candidate(number)


def _coloured(changed: str) -> Text:
    """A unified diff with its lines in colours; their first sign says the same."""
    text = Text()
    for line in changed.splitlines():
        text.append(f"{line}\n", style=STYLES.get(line[:1], ""))
    return text
