"""What language models said on the selected candidate, what they say now, and what they cost."""

from __future__ import annotations

from collections import defaultdict
from typing import ClassVar

from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widgets import Static

from asi_lab import spending
from asi_lab.spending import Spent
from asi_lab.text import plain
from asi_lab.tui.panes.pane import Pane
from asi_lab.tui.snapshot import Snapshot
from asi_lab.view.transcript import recorded, transcript


class Agents(Pane):
    """Costs above, the transcript below; it follows only while its end is in view."""

    DEFAULT_CSS = """
    Agents #costs { height: auto; max-height: 8; padding: 0 1; }
    Agents #scroll { height: 1fr; padding: 0 1; border-top: solid $primary-muted; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("f", "follow", "Follow")]

    def __init__(self) -> None:
        super().__init__(id="agents")
        self._follows, self._shown = False, ""

    def compose(self) -> ComposeResult:
        """Costs and transcript."""
        yield Static(id="costs")
        with VerticalScroll(id="scroll", can_focus=True):
            yield Static(id="text")

    def begin(self) -> None:
        """The keys go to the transcript."""
        self.query_one("#scroll").focus()

    def show(self, snapshot: Snapshot) -> None:
        """Costs, and the transcript with what is being said."""
        number = self.lab_app.selected
        talks = snapshot.status.talks
        if self._follows and talks:
            number = talks[-1].candidate
        with self.lab_app.reader.store() as store:
            entries = list(store.ledger.entries(f"{number}/").values()) if store is not None else []
        self.query_one("#costs", Static).update(_costs(entries, snapshot.status.spent))
        own = [talk for talk in talks if talk.candidate == number]
        state = f"{number} {len(entries)} {[(talk.role, talk.characters) for talk in own]}"
        if state == self._shown:
            return
        self._shown = state
        text = self.query_one("#text", Static)
        with self.lab_app.reader.store() as store:
            said = recorded(store, number) if store is not None and number is not None else []
        if said or own:
            text.update(transcript(said, own))
        else:
            text.update(Text("No language model was asked for this candidate."))
        if self._follows:
            self.query_one("#scroll", VerticalScroll).scroll_end(animate=False)

    def select(self, candidate_id: int | None) -> None:
        """Show another candidate's transcript."""
        self._follows = False
        if (snapshot := self.lab_app.snapshot) is not None:
            self.show(snapshot)

    def action_follow(self) -> None:
        """Follow whoever talks, or stay with the selected candidate."""
        self._follows = not self._follows
        self.notify("follows whoever talks" if self._follows else "stays with the selection", markup=False)
        self._shown = ""


def _costs(entries: list[dict[str, object]], whole: Spent) -> Table:
    """A candidate's costs by role and model, and those of the lab."""
    by: dict[tuple[str, str], Spent] = defaultdict(Spent)
    for entry in spending.of_models(entries):
        key = (str(entry["role"]), str(entry["model"]))
        by[key] = by[key].plus(entry)
    shown = Table(box=None, pad_edge=False)
    for heading in ("role", "model", "calls", "tokens", "dollars"):
        shown.add_column(heading, justify="left" if heading in ("role", "model") else "right")
    rows = [*by.items(), (("all of the lab", ""), whole)]
    for (role, model), spent in rows[-6:]:
        cells = (role, plain(model), str(spent.calls), f"{spent.tokens:,}", f"{spent.dollars:.4f}")
        shown.add_row(*(Text(cell) for cell in cells))
    return shown
