"""The machine, the engine and the lab's settings."""

from __future__ import annotations

import psutil
from rich.text import Text
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.widgets import Static

from asi_lab.tui.panes.pane import Pane
from asi_lab.tui.snapshot import Snapshot
from asi_lab.view import tables

GIB = 2**30


class System(Pane):
    """Facts in words."""

    def __init__(self) -> None:
        super().__init__(id="system")

    def compose(self) -> ComposeResult:
        """One text."""
        with VerticalScroll(id="scroll", can_focus=True):
            yield Static(id="facts")

    def begin(self) -> None:
        """The keys go to the text."""
        self.query_one("#scroll").focus()

    def show(self, snapshot: Snapshot) -> None:
        """Measure and show."""
        app, engine = self.lab_app, snapshot.status.engine
        memory, disk = psutil.virtual_memory(), psutil.disk_usage(str(app.lab.path))
        settings = app.reader.settings
        sandbox = next(
            (e.message for e in reversed(snapshot.events) if "sandbox" in e.data), "not chosen yet"
        )
        age = "-" if engine.beat_age is None else f"{engine.beat_age:.0f} s ago"
        facts = tables.grid(12, None)
        for heading, words in (
            ("lab", str(app.lab.path)),
            ("engine", f"{engine.state}, process {engine.pid or '-'}, heartbeat {age}"),
            ("sandbox", sandbox),
            ("CPU", f"{psutil.cpu_percent():.0f} % of {psutil.cpu_count()} cores"),
            ("memory", f"{memory.used / GIB:.1f} of {memory.total / GIB:.1f} GiB"),
            ("disk", f"{disk.free / GIB:.1f} GiB free of {disk.total / GIB:.1f}"),
            ("device", settings.device),
            ("limits", f"{settings.limits.trial_seconds:g} s and {settings.limits.memory_gb:g} GB a trial"),
            ("models", ", ".join(settings.agents.models) or "none: the grammar alone"),
            ("trials", tables.duration(snapshot.status.spent.trial_seconds)),
            ("GPU", tables.duration(snapshot.status.spent.gpu_seconds)),
        ):
            facts.add_row(Text(heading, style="dim"), Text(words))
        self.query_one("#facts", Static).update(facts)
