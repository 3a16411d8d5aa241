"""What language models said on the selected candidate, what they say now, what they cost and became."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import ClassVar

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Static

from asi_lab.common.text import plain
from asi_lab.lab import spending
from asi_lab.lab.spending import Cost, Spent
from asi_lab.llm.bandit import Arm
from asi_lab.tui.lines import Lines
from asi_lab.tui.panes.pane import Pane
from asi_lab.tui.snapshot import Snapshot
from asi_lab.view.transcript import transcript

MOST_ROWS = 6


class AgentsPane(Pane):
    """Costs above, the transcript below; it follows only while its end is in view."""

    DEFAULT_CSS = """
    AgentsPane #costs { height: auto; max-height: 12; padding: 0 1; }
    AgentsPane Lines { height: 1fr; padding: 0 1; border-top: solid $primary-muted; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("f", "follow", "Follow", id="agents.follow")]

    def __init__(self) -> None:
        super().__init__(id="agents")
        self._follows, self._shown = False, ""
        self._number: int | None = None

    def compose(self) -> ComposeResult:
        """Costs and transcript."""
        yield Static(id="costs")
        yield Lines(id="text")

    def begin(self) -> None:
        """The keys go to the transcript."""
        self.screen.set_focus(self.query_one(Lines))

    def show(self, snapshot: Snapshot) -> None:
        """Costs, and the transcript with what is being said."""
        number, reader = self.lab_app.selected, self.lab_app.reader
        talks = snapshot.status.talks
        if self._follows and talks:
            number = talks[-1].candidate
        entries = reader.costs(number) if number is not None else []
        own = [talk for talk in talks if talk.candidate == number]
        empty = self.missing(number)
        if any(summary.id == number for summary in snapshot.summaries):
            empty = "No language model was asked for this candidate."
        said_now = [(talk.role, talk.characters) for talk in own]
        state = f"{number} {len(entries)} {snapshot.status.spent.calls} {said_now} {empty}"
        if state == self._shown:
            return
        self._shown = state
        self.query_one("#costs", Static).update(_costs(entries, snapshot.status.spent, reader.arms()))
        said = reader.calls(number) if number is not None else []
        shown: RenderableType = Text(empty)
        if said or own:
            shown = transcript(said, own)
        lines = self.query_one(Lines)
        at_end, same = lines.is_at_end, number == self._number
        lines.render_in(shown, keep=same)
        self._number = number
        if self._follows and (at_end or not same):
            lines.scroll_end(animate=False)

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
        if (snapshot := self.lab_app.snapshot) is not None:
            self.show(snapshot)
        if self._follows:
            self.query_one(Lines).scroll_end(animate=False)

    def copied(self) -> tuple[str, str]:
        """The transcript."""
        return self.query_one(Lines).text, "the transcript"


def _costs(entries: Sequence[Cost], whole: Spent, arms: Sequence[Arm]) -> RenderableType:
    """A candidate's costs by role and model, those of the lab, and how the planners do."""
    by: dict[tuple[str, str], Spent] = defaultdict(Spent)
    for entry in spending.of_models(entries):
        key = (str(entry["role"]), str(entry["model"]))
        by[key] = by[key].plus(entry)
    rows = [*by.items(), (("all of the lab", ""), whole)]
    shown = _table("role", "model", "calls", "tokens", "dollars")
    for (role, model), spent in rows[-MOST_ROWS:]:
        cells = (role, plain(model), str(spent.calls), f"{spent.tokens:,}", f"{spent.dollars:.4f}")
        shown.add_row(*(Text(cell) for cell in cells))
    if len(arms) < 2:
        return shown
    bandit = _table("planner", "candidates", "trained", "over parent", "reward", "$ each", "index")
    for arm in arms[:MOST_ROWS]:
        index = "-" if arm.index is None else f"{arm.index:.3f}"
        figures = (arm.pulls, arm.trained, arm.better, f"{arm.reward:.3f}", f"{arm.dollars:.4f}", index)
        bandit.add_row(Text(plain(arm.model)), *map(str, figures))
    return Group(shown, bandit)


def _table(*headings: str) -> Table:
    shown = Table(box=None, pad_edge=False)
    for heading in headings:
        shown.add_column(heading, justify="left" if heading in ("role", "model", "planner") else "right")
    return shown
