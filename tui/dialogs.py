"""Questions and help in front of the panes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static


class Question(ModalScreen[bool]):
    """Asks; its keys answer with yes or no."""

    DEFAULT_CSS = """
    Question { align: center middle; }
    Question > Vertical { width: 72; max-width: 95%; height: auto; border: thick $primary; padding: 1 2;
        background: $surface; }
    """

    def action_answer(self, yes: bool) -> None:
        """Close with the answer."""
        self.dismiss(yes)


class Confirm(Question):
    """A question that only `y` answers with yes; Enter does nothing."""

    DEFAULT_CSS = "Confirm > Vertical { width: 60; border: thick $warning; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "Yes"),
        Binding("n,escape,q", "answer(False)", "No"),
    ]

    def __init__(self, question: str) -> None:
        super().__init__()
        self.question = question

    def compose(self) -> ComposeResult:
        """The question and the keys."""
        with Vertical():
            yield Static(Text(self.question))
            yield Static(Text("\ny yes   n no", style="bold"))


class Help(ModalScreen[None]):
    """The live keys, those of the focused pane first."""

    DEFAULT_CSS = """
    Help { align: center middle; }
    Help > VerticalScroll { width: 64; max-width: 95%; height: auto; max-height: 90%; padding: 1 2;
        border: thick $primary; background: $surface; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,question_mark,q,enter", "close", "Close")]

    def __init__(self, keys: Sequence[tuple[str, str]]) -> None:
        super().__init__()
        self.keys = keys

    def compose(self) -> ComposeResult:
        """A table of keys."""
        with VerticalScroll():
            yield Static(_pairs(self.keys, "bold"))

    def action_close(self) -> None:
        """Back to the panes."""
        self.dismiss(None)


class Start(Question):
    """What a search would be, before it is started."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "answer(True)", "Start"),
        Binding("escape,q", "answer(False)", "Not now"),
    ]

    def __init__(self, facts: Sequence[tuple[str, str]]) -> None:
        super().__init__()
        self.facts = facts

    def compose(self) -> ComposeResult:
        """The facts and the keys."""
        with Vertical():
            yield Static(Text("No engine is at work on this lab.\n", style="bold"))
            yield Static(_pairs(self.facts, "dim"))
            yield Static(Text("\ns starts one that outlives this terminal   Esc only look", style="bold"))


def _pairs(rows: Sequence[tuple[str, str]], style: str) -> Table:
    """Headings and words."""
    shown = Table(box=None, show_header=False, pad_edge=False)
    for heading, words in rows:
        shown.add_row(Text(heading, style=style), Text(words))
    return shown
