"""The machine, the engine and the lab's settings."""

from __future__ import annotations

from collections.abc import Iterator

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.widgets import Static

from asi_lab.common.machine import Gpu, Machine
from asi_lab.common.text import one_line
from asi_lab.tui.panes.pane import Pane
from asi_lab.tui.snapshot import Snapshot
from asi_lab.view import tables

GIB = 2**30
BAR = 20


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
        self.screen.set_focus(self.query_one("#scroll"))

    def show(self, snapshot: Snapshot) -> None:
        """Show what was measured."""
        facts = tables.grid(12, None)
        for heading, words in self._facts(snapshot):
            facts.add_row(Text(heading, style="dim"), Text(one_line(words)))
        self.query_one("#facts", Static).update(facts)

    def _facts(self, snapshot: Snapshot) -> Iterator[tuple[str, str]]:
        app, engine = self.lab_app, snapshot.status.engine
        settings, spent = app.reader.settings, snapshot.status.spent
        sandbox = (e.message for e in reversed(snapshot.events) if "sandbox" in e.data)
        age = "-" if engine.beat_age is None else f"{engine.beat_age:.0f} s ago"
        yield "lab", str(app.lab.path)
        yield "engine", f"{engine.words}, process {engine.pid or '-'}, heartbeat {age}"
        yield "sandbox", next(sandbox, f"{settings.sandbox}: an engine tells at its start what it chose")
        if snapshot.machine is None:
            yield "machine", "not measured: this is a recording"
        else:
            yield from _machine(snapshot.machine)
        yield "device", settings.device
        limits = settings.limits
        yield (
            "limits",
            f"a trial: {limits.trial_seconds:g} s, {limits.memory_gb:g} GB memory, {limits.disk_gb:g} GB "
            f"disk, {limits.processes} processes, {limits.stall_seconds:g} s of silence",
        )
        yield "models", ", ".join(settings.agents.models) or "none: the grammar alone"
        yield (
            "trials",
            f"{tables.duration(spent.trial_seconds)}, {tables.duration(spent.gpu_seconds)} on a GPU",
        )
        yield "models cost", tables.costs(spent)


def _machine(machine: Machine) -> Iterator[tuple[str, str]]:
    yield "CPU", f"{bar(machine.cpu)} {machine.cpu:.0%} of {machine.cores} cores"
    memory = machine.used / machine.total
    yield "memory", f"{bar(memory)} {machine.used / GIB:.1f} of {machine.total / GIB:.1f} GiB"
    taken = 1 - machine.disk_free / machine.disk_total
    yield "disk", f"{bar(taken)} {machine.disk_free / GIB:.1f} GiB free of {machine.disk_total / GIB:.1f}"
    for number, gpu in enumerate(machine.gpus):
        yield f"GPU {number}", f"{bar(gpu.load)} {gpu.load:.0%}  {gpu_words(gpu)}  {gpu.name}"
    if not machine.gpus:
        yield "GPU", "NVML finds none"


def bar(share: float) -> str:
    """A share in [0, 1] as a bar of characters."""
    full = round(min(max(share, 0.0), 1.0) * BAR)
    return "█" * full + "░" * (BAR - full)


def gpu_words(gpu: Gpu) -> str:
    """A GPU's memory, power and temperature."""
    words = f"{gpu.used / GIB:.1f} of {gpu.total / GIB:.1f} GiB"
    words += "" if gpu.watts is None else f", {gpu.watts:.0f} W"
    return words + ("" if gpu.celsius is None else f", {gpu.celsius} °C")


def strip(machine: Machine) -> str:
    """The machine in a line."""
    parts = [f"CPU {machine.cpu:.0%}", f"memory {machine.used / GIB:.1f}/{machine.total / GIB:.0f} GiB"]
    for number, gpu in enumerate(machine.gpus):
        name = f"GPU{number if len(machine.gpus) > 1 else ''}"
        watts = "" if gpu.watts is None else f" {gpu.watts:.0f} W"
        parts.append(f"{name} {gpu.load:.0%} {gpu.used / GIB:.0f}/{gpu.total / GIB:.0f} GiB{watts}")
    return "  ".join([*parts, f"disk {machine.disk_free / GIB:.0f} GiB free"])
