"""A candidate's files against those of its parent, the seed, the best or a marked candidate."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import ClassVar, NamedTuple

from rich.style import Style
from rich.syntax import Syntax
from rich.text import Text
from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Static

from asi_lab.common.text import plain
from asi_lab.lab import commits
from asi_lab.records import SEED_ID, Candidate
from asi_lab.tui.lines import Lines, split
from asi_lab.tui.panes.pane import Pane, following
from asi_lab.tui.snapshot import Snapshot

AGAINST = ("parent", "seed", "best")
NOTHING = "nothing"
FILES = ("architecture.py", "motivation.md", "analysis.md", "metrics.json")
CONTEXT = 3
LEXERS = {"py": "python", "md": "markdown", "json": "json"}
DARK, LIGHT = "ansi_dark", "ansi_light"


class Pair(NamedTuple):
    """One row: line number and line before and after, None where there is none. `sign` is ` `, `-`, `+` or
    `!` (changed); that of a heading between two pieces is `@`."""

    sign: str
    left: tuple[int, Text] | None
    right: tuple[int, Text] | None


class Diff(Pane):
    """A diff by lines, unified or side by side, or a whole file."""

    DEFAULT_CSS = """
    Diff #title { height: 1; padding: 0 1; text-style: bold; }
    Diff Lines { height: 1fr; padding: 0 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("b", "against", "Against", id="diff.against"),
        Binding("v", "view", "Side by side", id="diff.view"),
        Binding("right_square_bracket", "hunk(1)", "Next hunk", id="diff.next-hunk"),
        Binding("left_square_bracket", "hunk(-1)", "Hunk before", show=False, id="diff.hunk-before"),
        Binding("right_curly_bracket", "file(1)", "Next file", id="diff.next-file"),
        Binding("left_curly_bracket", "file(-1)", "File before", show=False, id="diff.file-before"),
    ]
    KEPT = ("beside",)

    def __init__(self) -> None:
        super().__init__(id="diff")
        self.beside = False
        self._against, self._file = "parent", FILES[0]
        self._best: int | None = None
        self._text, self._drawn = "", None
        self._hunks: list[int] = []

    def compose(self) -> ComposeResult:
        """A title and the lines."""
        yield Static(id="title", markup=False)
        yield Lines(id="text")

    def begin(self) -> None:
        """The keys go to the lines."""
        self.screen.set_focus(self.query_one(Lines))

    def show(self, snapshot: Snapshot) -> None:
        """Remember the best."""
        scored = [s for s in snapshot.summaries if s.merit is not None and s.id != SEED_ID]
        self._best = max(scored, key=lambda s: s.merit or 0.0).id if scored else None

    def marked(self, snapshot: Snapshot) -> None:
        """There are others to compare with."""
        self.select(self.lab_app.selected)

    def select(self, candidate_id: int | None) -> None:
        """Show another candidate's files."""
        title, lines = self._compared(candidate_id)
        self.query_one("#title", Static).update(title)
        self.query_one(Lines).show(lines)

    def on_resize(self, event: events.Resize) -> None:
        """Sides by side are half as wide as the pane."""
        if self.beside and self.lab_app.snapshot is not None:
            self.select(self.lab_app.selected)

    def copied(self) -> tuple[str, str]:
        """The text in view."""
        return self._text, "the diff" if self._against != NOTHING else "the file"

    def action_against(self) -> None:
        """Compare with something else, or show the whole file."""
        marks = [f"{number:04d}" for number in self.lab_app.marks]
        self._against = following((*AGAINST, *marks, NOTHING), self._against)
        self.select(self.lab_app.selected)

    def action_view(self) -> None:
        """One below the other, or side by side."""
        self.beside = not self.beside
        self.select(self.lab_app.selected)

    def action_hunk(self, by: int) -> None:
        """Go to the next piece, or the one before."""
        lines = self.query_one(Lines)
        here = round(lines.scroll_target_y)
        found = [y for y in self._hunks if (y > here if by > 0 else y < here)]
        if found:
            lines.scroll_to(y=found[0] if by > 0 else found[-1], animate=False)

    def action_file(self, by: int) -> None:
        """Show another file of the candidate."""
        self._file = FILES[(FILES.index(self._file) + by) % len(FILES)]
        self.select(self.lab_app.selected)

    def _compared(self, candidate_id: int | None) -> tuple[str, Sequence[Text]]:
        self._hunks, self._text = [], ""
        found = None if candidate_id is None else self.lab_app.reader.candidate(candidate_id)
        if found is None:
            return self.missing(candidate_id), ()
        if found.proposal is None:
            return f"{found.id:04d}: nothing is written of it yet.", ()
        name = f"{self._file}: {found.id:04d} {plain(found.name, limit=32)}"
        own = _file(found, self._file)
        if self._against == NOTHING:
            self._text = own
            return name, self._coloured(own)
        other = self._other(found)
        if other is None:
            return f"{name}: there is no {self._against} to compare with; b changes that.", ()
        title = f"{name} against {self._against} {other.id:04d} {plain(other.name, limit=60)}"
        theirs = _file(other, self._file)
        labels = (f"{other.id:04d} {plain(other.name)}", f"{found.id:04d} {plain(found.name)}")
        self._text = "\n".join(
            difflib.unified_diff(theirs.splitlines(), own.splitlines(), *labels, n=CONTEXT, lineterm="")
        )
        if not self._text:
            return title, (Text("The same text."),)
        pairs = list(_pairs(self._coloured(theirs), self._coloured(own)))
        lines = self._beside(pairs) if self.beside else self._unified(pairs)
        return title, lines or (Text("Only blanks differ."),)

    def _other(self, found: Candidate) -> Candidate | None:
        if self._against in AGAINST:
            number = {"parent": found.parent, "seed": SEED_ID, "best": self._best}[self._against]
        else:
            number = int(self._against)
        return None if number is None or number == found.id else self.lab_app.reader.candidate(number)

    def _coloured(self, text: str) -> list[Text]:
        """The lines of a file in the colours of its language."""
        theme = DARK if self.app.current_theme.dark else LIGHT
        return [line.copy() for line in _highlighted(text, LEXERS[self._file.rsplit(".", 1)[-1]], theme)]

    def _unified(self, pairs: Sequence[Pair]) -> list[Text]:
        lines: list[Text] = []
        held: list[Text] = []  # lines that came in the place of others follow all of those
        for pair in [*pairs, Pair(" ", None, None)]:
            if pair.sign != "!":
                lines += held
                held = []
            if pair.sign == "@":
                self._hunks.append(len(lines))
                lines.append(_heading(pair))
                continue
            if pair.left and pair.sign in "-! ":
                lines.append(_signed("-" if pair.sign in "-!" else " ", pair.left[1]))
            if pair.right and pair.sign in "+!":
                added = _signed("+", pair.right[1])
                (held if pair.sign == "!" else lines).append(added)
        return lines

    def _beside(self, pairs: Sequence[Pair]) -> list[Text]:
        half = max(20, (self.query_one(Lines).size.width - 5) // 2)
        lines: list[Text] = []
        for pair in pairs:
            if pair.sign == "@":
                self._hunks.append(len(lines))
                lines.append(_heading(pair))
                continue
            changed = pair.sign != " "
            left = _cut(_numbered(pair.left, "-" if changed else " "), half)
            right = _cut(_numbered(pair.right, "+" if changed else " "), half)
            for place in range(max(len(left), len(right))):
                one = left[place] if place < len(left) else Text()
                one.pad_right(half - one.cell_len)
                lines.append(Text.assemble(one, " │ ", right[place] if place < len(right) else Text()))
        return lines


def _file(candidate: Candidate, name: str) -> str:
    return plain(commits.files_of(candidate).get(name, ""), multiline=True)


@lru_cache(maxsize=16)
def _highlighted(text: str, lexer: str, theme: str) -> Sequence[Text]:
    coloured = Syntax("", lexer, theme=theme).highlight(text)
    coloured.style = ""
    coloured.spans = [span._replace(style=_ink(span.style)) for span in coloured.spans]
    return split(coloured)


def _ink(style: str | Style) -> str | Style:
    """A style without its background, which is that of the pane."""
    if isinstance(style, str):
        return style
    return Style(color=style.color, bold=style.bold, italic=style.italic, dim=style.dim)


def _pairs(before: Sequence[Text], after: Sequence[Text]) -> Iterator[Pair]:
    """Rows of both files, with the places that did not change left out but for a few lines around."""
    old, new = [line.plain for line in before], [line.plain for line in after]
    for group in difflib.SequenceMatcher(None, old, new, autojunk=False).get_grouped_opcodes(CONTEXT):
        _, first, _, beginning, _ = group[0]
        yield Pair("@", (first + 1, Text()), (beginning + 1, Text()))
        for tag, i1, i2, j1, j2 in group:
            for step in range(max(i2 - i1, j2 - j1)):
                left = (i1 + step + 1, before[i1 + step]) if i1 + step < i2 else None
                right = (j1 + step + 1, after[j1 + step]) if j1 + step < j2 else None
                sign = " " if tag == "equal" else "!" if left and right else "-" if left else "+"
                yield Pair(sign, left, right)


def _heading(pair: Pair) -> Text:
    assert pair.left is not None
    assert pair.right is not None
    return Text(f"@@ line {pair.left[0]} -> line {pair.right[0]} @@", style="bold cyan")


STYLES = {"+": "bold green", "-": "bold red", " ": ""}
"""The sign's colour; the sign says the same."""


def _signed(sign: str, line: Text) -> Text:
    return Text.assemble((f"{sign} ", STYLES[sign]), line)


def _numbered(side: tuple[int, Text] | None, sign: str) -> Text:
    if side is None:
        return Text()
    return Text.assemble((f"{side[0]:4d} ", "dim"), _signed(sign, side[1]))


def _cut(line: Text, width: int) -> list[Text]:
    """A line in pieces of at most that width."""
    length = len(line)
    return list(line.divide(range(width, length, width))) if length > width else [line]
