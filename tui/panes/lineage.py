"""The lineage as a tree by parent, with the path to the best marked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from asi_lab.summary import Summary
from asi_lab.tui.linetable import Column, LineTable, Row
from asi_lab.tui.panes.candidates import glyph
from asi_lab.tui.panes.pane import ListPane
from asi_lab.tui.snapshot import Snapshot

COLUMNS = (Column("lineage", 0), Column("loss", 8, right=True), Column("fitness", 8, right=True))


class Lineage(ListPane):
    """A tree in a table; branches can be folded."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "fold", "Fold"),
        Binding("u", "jump('parent')", "Parent"),
        Binding("b", "jump('child')", "Best child"),
        Binding("n", "jump('sibling')", "Sibling"),
    ]

    def __init__(self) -> None:
        super().__init__(id="lineage")
        self._folded: set[int] = set()

    def compose(self) -> ComposeResult:
        """The tree."""
        yield LineTable(COLUMNS, id="tree", empty="The lineage begins with the baselines.")

    def fill(self, snapshot: Snapshot) -> None:
        """Draw the tree."""
        self.table.show(tree(snapshot.summaries, self._folded))

    def action_fold(self) -> None:
        """Hide or show what descends from the selected candidate."""
        selected = self.table.selected
        if selected is not None:
            self._folded ^= {selected}
            self.refill()

    def action_jump(self, where: str) -> None:
        """Go to the parent, the best child, or the next sibling."""
        selected = self.table.selected
        if self.snapshot is None or selected is None:
            return
        known = {s.id: s for s in self.snapshot.summaries}
        children = _children(self.snapshot.summaries)
        here = known[selected]
        found: int | None = None
        if where == "parent":
            found = here.parent
        elif where == "child":
            best = sorted(children[selected], key=lambda s: -(s.fitness or 0.0))
            found = best[0].id if best else None
        elif here.parent is not None:
            siblings = [s.id for s in children[here.parent]]
            found = siblings[(siblings.index(selected) + 1) % len(siblings)]
        if found is not None:
            self.lab_app.selected = found


def _children(summaries: Sequence[Summary]) -> Mapping[int, list[Summary]]:
    children: dict[int, list[Summary]] = defaultdict(list)
    for summary in summaries:
        if summary.parent is not None:
            children[summary.parent].append(summary)
    return children


def tree(summaries: Sequence[Summary], folded: set[int]) -> list[Row]:
    """The rows of the tree, parents before children; what is folded says how much it hides."""
    known, children = {s.id: s for s in summaries}, _children(summaries)
    scored = [s for s in summaries if s.fitness is not None]
    path: set[int] = set()
    number = max(scored, key=lambda s: s.fitness or 0.0).id if scored else None
    while number is not None and number in known and number not in path:
        path.add(number)
        number = known[number].parent
    rows: list[Row] = []
    waiting = [(s, "", "") for s in reversed(summaries) if s.parent is None]
    while waiting:
        summary, stem, branch = waiting.pop()
        below = children[summary.id]
        mark = "★ " if summary.id in path else ""
        hidden = f"  (+{len(below)} folded)" if summary.id in folded and below else ""
        words = f"{stem}{branch}{glyph(summary.state)} {summary.id:04d} {mark}{summary.name}{hidden}"
        loss = "" if summary.loss is None else f"{summary.loss:.4f}"
        fitness = "" if summary.fitness is None else f"{summary.fitness:.4f}"
        style = "bold" if summary.id in path else "dim" if summary.state.is_failure else ""
        rows.append(Row(summary.id, (words, loss, fitness), style))
        if summary.id not in folded:
            deeper = stem + {"": "", "├─": "│ ", "└─": "  "}[branch]
            for place, child in reversed(list(enumerate(below))):
                waiting.append((child, deeper, "└─" if place == len(below) - 1 else "├─"))
    return rows
