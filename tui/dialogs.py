"""Questions and help in front of the panes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from rich.table import Table
from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from asi_lab.lab import Lab
from asi_lab.settings import Settings
from asi_lab.tui import engine, verbs
from asi_lab.tui.engine import Wanted
from asi_lab.tui.field import Field


class QuestionScreen(ModalScreen[bool]):
    """Asks; its keys answer with yes or no."""

    DEFAULT_CSS = """
    QuestionScreen { align: center middle; }
    QuestionScreen > Vertical { width: 72; max-width: 95%; height: auto; border: thick $primary; padding: 1 2;
        background: $surface; }
    """

    def action_answer(self, yes: bool) -> None:
        """Close with the answer."""
        self.dismiss(yes)


class Confirm(QuestionScreen):
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
    """The live keys, those of the focused pane first, and all commands."""

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
            yield Static(Text("Keys that are live here", style="bold"))
            yield Static(_pairs(self.keys, "bold"))
            yield Static(Text("\nCommands, after a colon; a few letters are enough", style="bold"))
            commands = [(f"{verb.name} {verb.takes}", verb.help) for verb in verbs.VERBS]
            yield Static(_pairs(commands, "bold"))

    def action_close(self) -> None:
        """Back to the panes."""
        self.dismiss(None)


class Start(ModalScreen[Wanted | None]):
    """What a search would be, before it is started, and how far it is to go."""

    DEFAULT_CSS = """
    Start { align: center middle; }
    Start > VerticalScroll { width: 76; max-width: 95%; height: auto; max-height: 95%; padding: 0 2;
        border: thick $primary; background: $surface; }
    Start Input, Start Input:focus { height: 1; border: none; width: 24; background: $boost; }
    Start Horizontal { height: 1; }
    Start Horizontal Static { width: auto; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "start", "Start"),
        Binding("escape,q", "leave", "Not now"),
    ]

    def __init__(self, lab: Lab, settings: Settings) -> None:
        super().__init__()
        self.lab, self.settings = lab, settings
        self.facts = engine.facts(lab, settings)

    def compose(self) -> ComposeResult:
        """The facts, how far to go, and the keys."""
        with VerticalScroll(can_focus=True):
            yield Static(Text("No engine is at work on this lab.", style="bold"))
            yield Static(id="facts")
            with Horizontal():
                yield Static(Text("candidates ", style="dim"))
                yield Field(self._ready, placeholder="no limit", type="integer", id="experiments")
                yield Static(Text(" hours ", style="dim"))
                yield Field(self._ready, placeholder="no limit", type="number", id="hours")
            yield Static(id="fault")
            yield Static(
                Text("s starts one that outlives this terminal   Tab limits   Esc only look", "bold")
            )

    def on_mount(self) -> None:
        """Show what is known, and find out the rest in the background."""
        self._ready()
        self._show()
        self._find()

    def _ready(self) -> None:
        """Give the keys to the dialog, also from a field."""
        self.set_focus(self.query_one(VerticalScroll))

    @work(thread=True)
    def _find(self) -> None:
        for fact in engine.findings(self.lab, self.settings):
            self.app.call_from_thread(self._add, fact)

    def _add(self, fact: tuple[str, str]) -> None:
        self.facts.append(fact)
        self._show()

    def _show(self) -> None:
        for shown in self.query("#facts").results(Static):  # none any more where it was closed meanwhile
            shown.update(_pairs(self.facts, "dim"))

    def action_start(self) -> None:
        """Begin, with the limits that were typed."""
        experiments, hours = (self.query_one(f"#{name}", Field) for name in ("experiments", "hours"))
        try:
            wanted = engine.Wanted(
                int(experiments.value) if experiments.value else None,
                float(hours.value) if hours.value else None,
            )
            given = [limit for limit in (wanted.experiments, wanted.hours) if limit is not None]
            if not all(0 < limit < math.inf for limit in given):
                raise ValueError
        except ValueError:
            self.query_one("#fault", Static).update(
                Text("Expected a number of candidates and of hours above 0, or nothing.", style="red")
            )
            return
        self.dismiss(wanted)

    def action_leave(self) -> None:
        """Only look."""
        self.dismiss(None)


def _pairs(rows: Sequence[tuple[str, str]], style: str) -> Table:
    """Headings and words."""
    shown = Table(box=None, show_header=False, pad_edge=False)
    for heading, words in rows:
        shown.add_row(Text(heading, style=style), Text(words))
    return shown
