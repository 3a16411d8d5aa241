"""The lineage as a tree by parent with the path to the best, and the ancestors of the selected candidate as
a graph."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from asi_lab.common.text import plain
from asi_lab.lab.summary import Summary
from asi_lab.tui.linetable import LineTable, TableColumn, TableRow
from asi_lab.tui.panes.candidates import NO_NOTE, glyph
from asi_lab.tui.panes.pane import ListPane
from asi_lab.tui.snapshot import Snapshot

COLUMNS = (
    TableColumn("lineage", 0),
    TableColumn("loss", 8, right=True),
    TableColumn("fitness", 8, right=True),
)
WITH_REFERENCES = 2
"""Generations of a graph whose references are shown; those of more would cross beyond reading."""


class LineagePane(ListPane):
    """A tree in a table, whose branches can be folded, or a graph."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "fold", "Fold", id="lineage.fold"),
        Binding("u", "jump('parent')", "Parent", id="lineage.parent"),
        Binding("b", "jump('child')", "Best child", id="lineage.child"),
        Binding("n", "jump('sibling')", "Sibling", id="lineage.sibling"),
        Binding("a", "graph", "Ancestors", id="lineage.ancestors"),
        Binding("escape", "tree", "Tree", show=False, id="lineage.tree"),
    ]

    def __init__(self) -> None:
        super().__init__(id="lineage")
        self._folded: set[int] = set()
        self._of: int | None = None

    def compose(self) -> ComposeResult:
        """The table."""
        yield LineTable(COLUMNS, id="tree", chosen=self.chosen)

    def fill(self, snapshot: Snapshot) -> None:
        """Draw the tree, or the graph."""
        words = self._words(snapshot)
        if self._of is None or all(summary.id != self._of for summary in snapshot.summaries):
            rows = tree(snapshot.summaries, self._folded, words)
        else:
            rows = graph(self._of, snapshot.summaries, self._references, words)
        self.table.show(rows, "The lineage begins with the baselines.")
        self.table.select(self.lab_app.selected)

    def action_fold(self) -> None:
        """Hide or show what descends from the selected candidate."""
        selected = self.table.selected
        if selected is not None:
            self._folded ^= {selected}
            self.refill()

    def action_graph(self) -> None:
        """Show the ancestors of the selected candidate and its references; or the tree again."""
        self._of = self.table.selected if self._of is None else None
        self.refill()

    def action_tree(self) -> None:
        """Show the tree."""
        self._of = None
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
            best = sorted(children[selected], key=lambda s: -(s.merit or 0.0))
            found = best[0].id if best else None
        elif here.parent is not None:
            siblings = [s.id for s in children[here.parent]]
            found = siblings[(siblings.index(selected) + 1) % len(siblings)]
        if found is not None:
            self._unfold(found, known)
            self.lab_app.selected = found

    def _unfold(self, number: int, known: Mapping[int, Summary]) -> None:
        """Open what hides a candidate."""
        parent, hiding = known[number].parent, set[int]()
        while parent is not None and parent in known:
            hiding |= {parent} & self._folded
            parent = known[parent].parent
        if hiding:
            self._folded -= hiding
            self.refill()

    def _references(self, number: int) -> Sequence[int]:
        found = self.lab_app.reader.candidate(number)
        return found.draw.references if found is not None and found.draw is not None else ()

    def _words(self, snapshot: Snapshot) -> Callable[[Summary], str]:
        """What stands behind a candidate's sign and number."""
        marks, asked = self.lab_app.marks, snapshot.status.steering

        def words(summary: Summary) -> str:
            signs = "◆ " if summary.id in marks else ""
            signs += (
                "pinned " if summary.id == asked.pinned else "banned " if summary.id in asked.banned else ""
            )
            tags = "".join(f"#{tag} " for tag in snapshot.notes.get(summary.id, NO_NOTE).tags)
            return f"{signs}{tags}{plain(summary.name)}"

        return words


def _children(summaries: Sequence[Summary]) -> Mapping[int, list[Summary]]:
    children: dict[int, list[Summary]] = defaultdict(list)
    for summary in summaries:
        if summary.parent is not None:
            children[summary.parent].append(summary)
    return children


def _row(summary: Summary, line: Callable[[], str], style: str) -> TableRow:
    def cells() -> tuple[str, str, str]:
        loss = "" if summary.loss is None else f"{summary.loss:.4f}"
        fitness = "" if summary.fitness is None else f"{summary.fitness:.4f}"
        return line(), loss, fitness

    return TableRow(summary.id, cells, style)


def tree(summaries: Sequence[Summary], folded: set[int], words: Callable[[Summary], str]) -> list[TableRow]:
    """The rows of the tree, parents before children; what is folded says how much it hides."""
    known, children = {s.id: s for s in summaries}, _children(summaries)
    scored = [s for s in summaries if s.merit is not None]
    path: set[int] = set()
    number = max(scored, key=lambda s: s.merit or 0.0).id if scored else None
    while number is not None and number in known and number not in path:
        path.add(number)
        number = known[number].parent
    rows: list[TableRow] = []
    waiting = [(s, "", "") for s in reversed(summaries) if s.parent is None]
    while waiting:
        summary, stem, branch = waiting.pop()
        below = children[summary.id]
        mark = "★ " if summary.id in path else ""
        hidden = f"  (+{len(below)} folded)" if summary.id in folded and below else ""
        line = functools.partial(_line, f"{stem}{branch}", summary, mark, words, hidden)
        style = "bold" if summary.id in path else "dim" if summary.state.is_failure else ""
        rows.append(_row(summary, line, style))
        if summary.id not in folded:
            deeper = stem + {"": "", "├─": "│ ", "└─": "  "}[branch]
            for place, child in reversed(list(enumerate(below))):
                waiting.append((child, deeper, "└─" if place == len(below) - 1 else "├─"))
    return rows


def _line(before: str, summary: Summary, mark: str, words: Callable[[Summary], str], after: str) -> str:
    return f"{before}{glyph(summary.state)} {summary.id:04d} {mark}{words(summary)}{after}"


def graph(
    number: int,
    summaries: Sequence[Summary],
    references: Callable[[int], Sequence[int]],
    words: Callable[[Summary], str],
) -> list[TableRow]:
    """A candidate, its ancestors and what the youngest of them had as references, the youngest first, a
    column for each line of descent. An edge to a parent is drawn as `│`, one to a reference as `┊`; the
    sign of its state is the candidate of the row, which joins the lines at `┼` and ends those at `┘`."""
    known = {s.id: s for s in summaries}
    path = [number]
    while (parent := known[path[-1]].parent) is not None and parent in known and parent not in path:
        path.append(parent)
    beside = {one: tuple(references(one)) for one in path[:WITH_REFERENCES]}
    found = {*path, *(one for others in beside.values() for one in others)} & known.keys()
    lanes: list[tuple[int, str]] = []  # whom each column leads to, and by which kind of edge
    rows: list[TableRow] = []
    for here in sorted(found, reverse=True):
        own = [place for place, (goal, _) in enumerate(lanes) if goal == here]
        place = own[0] if own else len(lanes)
        summary = known[here]
        edges = {goal: "┊" for goal in beside.get(here, ()) if goal in found}
        if here in path and summary.parent in found:
            edges = {summary.parent: "│"} | edges
        drawn = [
            glyph(summary.state) if i == place else "┘" if i in own else "┼" if goal in edges else edge
            for i, (goal, edge) in enumerate(lanes)
        ]
        drawn += [glyph(summary.state)] if place == len(lanes) else []
        kept = [lane for i, lane in enumerate(lanes) if i not in own]
        goals = {goal for goal, _ in kept}
        new = [(goal, edge) for goal, edge in edges.items() if goal not in goals]
        lanes = [*kept[:place], *new, *kept[place:]]
        line = f"{' '.join(drawn)}  {here:04d} {words(summary)}"
        rows.append(_row(summary, functools.partial(str, line), "bold" if here == number else ""))
    return rows
