"""A line to type into."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from textual.widgets import Input


class Field(Input):
    """An input that does at once what Enter is to do: the next keys, which may be typed already, come before
    any message about it. Nor does it select its text once it hears that it has the keys."""

    def __init__(self, entered: Callable[[], object], **options: Any) -> None:
        """`entered` is what Enter does."""
        super().__init__(select_on_focus=False, **options)
        self._entered = entered

    async def action_submit(self) -> None:
        """Enter."""
        self._entered()
