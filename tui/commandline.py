"""The line at the bottom into which commands are typed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.suggester import Suggester
from textual.widgets import Input


class _Words(Suggester):
    """Goes on with the first line that begins like what is typed."""

    def __init__(self, lines: Iterable[str]) -> None:
        super().__init__(use_cache=False, case_sensitive=True)
        self.lines = sorted(lines)

    async def get_suggestion(self, value: str) -> str | None:
        return next((line for line in self.lines if line.startswith(value) and line != value), None)


class CommandLine(Input):
    """Shown while something is typed; Enter does it, Esc closes it, Up and Down recall."""

    DEFAULT_CSS = """
    CommandLine { display: none; height: 1; border: none; padding: 0 1; background: $panel; }
    CommandLine:focus { border: none; }
    CommandLine.-shown { display: block; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "close", "Close"),
        Binding("up", "recall(-1)", "Earlier", show=False),
        Binding("down", "recall(1)", "Later", show=False),
        Binding("tab", "cursor_right", "Take", show=False),
    ]

    def __init__(self, lines: Iterable[str], given: Callable[[str], object]) -> None:
        """`lines` are what can be completed; `given` does what was typed, nothing where it is empty."""
        super().__init__(id="commands", select_on_focus=False, suggester=_Words(lines))
        self._given = given
        self.placeholder = "a command, or a candidate's id; Esc closes"
        self.past: list[str] = []
        self._place = 0

    def open(self, words: str) -> None:
        """Take the keys; `words` are typed already."""
        self.value, self._place = words, len(self.past)
        self.add_class("-shown")
        self.screen.set_focus(self)  # at once: the next keys may be typed already
        self.cursor_position = len(words)

    def action_close(self) -> None:
        """Give the keys back."""
        self._leave("")

    def action_recall(self, by: int) -> None:
        """Bring an earlier command back."""
        self._place = min(max(0, self._place + by), len(self.past))
        self.value = self.past[self._place] if self._place < len(self.past) else ""
        self.cursor_position = len(self.value)

    async def action_submit(self) -> None:
        """Do it."""
        words = self.value.strip()
        if words:
            self.past.append(words)
        self._leave(words)

    def _leave(self, words: str) -> None:
        """Close at once: the next keys, which may be typed already, are for the panes."""
        self.remove_class("-shown")
        self.screen.set_focus(None)
        self._given(words)

    def on_input_changed(self, event: Input.Changed) -> None:
        """What is typed here is nobody else's."""
        event.stop()

    def on_blur(self, event: events.Blur) -> None:
        """Close when the mouse goes elsewhere; it may be open again by now."""
        if self.screen.focused is not self:
            self.remove_class("-shown")
