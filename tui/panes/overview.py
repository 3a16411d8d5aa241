"""The whole search at a glance: state, best so far against the baseline, the running trial's curve."""

from __future__ import annotations

import itertools

import numpy as np
from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Container, VerticalScroll
from textual.widgets import Static
from textual_plot import HiResMode, PlotWidget

from asi_lab.records import SEED_ID
from asi_lab.tui.panes.pane import Pane
from asi_lab.tui.panes.system import strip
from asi_lab.tui.snapshot import Snapshot
from asi_lab.view import tables

MOST_POINTS = 300
"""Candidates that are drawn as points; the line of the best misses none."""
LIVE = ("cyan", "magenta", "green", "yellow")
"""The curves of the running trials."""


class Overview(Pane):
    """State in words, and two plots."""

    DEFAULT_CSS = """
    Overview { layout: horizontal; }
    Overview #words { width: 1fr; padding: 0 1; }
    Overview #plots { width: 1fr; display: none; }
    Overview PlotWidget { height: 1fr; border: round $primary-muted; }
    """

    def __init__(self) -> None:
        super().__init__(id="overview")
        self._drawn: object = None

    def compose(self) -> ComposeResult:
        """Words at the left; plots at the right where there is room."""
        with VerticalScroll(id="words", can_focus=True):
            yield Static(id="machine")
            yield Static(id="state")
        with Container(id="plots"):
            yield PlotWidget(id="best", allow_pan_and_zoom=False)
            yield PlotWidget(id="live", allow_pan_and_zoom=False)

    def begin(self) -> None:
        """The keys go to the words."""
        self.screen.set_focus(self.query_one("#words"))

    def show(self, snapshot: Snapshot) -> None:
        """Words always, plots where they are seen."""
        machine = snapshot.machine
        self.query_one("#machine", Static).update(Text(strip(machine) if machine else "", style="dim"))
        self.query_one("#state", Static).update(tables.status(snapshot.status))
        if self.query_one("#plots").display:
            self._best(snapshot)
            self._live(snapshot)

    def _best(self, snapshot: Snapshot) -> None:
        if (drawn := (snapshot.summaries, snapshot.board)) == self._drawn:
            return
        self._drawn = drawn
        plot = self.query_one("#best", PlotWidget)
        scored = [s for s in snapshot.summaries if s.loss is not None and s.id != SEED_ID]
        plot.border_title = Text("held-out loss by candidate: all, best so far, the bar and what beats it")
        board = snapshot.board
        plot.display = bool(scored) and board is not None
        if not scored or board is None:
            return
        plot.clear()
        ids = np.array([s.id for s in scored], dtype=float)
        losses = np.array([s.loss for s in scored], dtype=float)
        every = max(1, len(ids) // MOST_POINTS)
        plot.scatter(ids[::every], losses[::every], marker="·", marker_style="grey62")
        best = np.minimum.accumulate(losses)
        kept = np.flatnonzero(np.diff(best, prepend=np.inf))
        steps = np.repeat(best[kept], 2)
        ends_of_steps = np.append(np.repeat(ids[kept], 2)[1:], ids[-1])
        plot.plot(ends_of_steps, steps, line_style="green", hires_mode=HiResMode.BRAILLE)
        base = board.baselines[0].loss
        ends = np.array([ids[0], max(ids[-1], ids[0] + 1)])
        for value, style in ((base, "yellow"), (base - board.margins[board.bar], "grey50")):
            plot.plot(ends, np.full(2, value), line_style=style, hires_mode=HiResMode.BRAILLE)

    def _live(self, snapshot: Snapshot) -> None:
        plot = self.query_one("#live", PlotWidget)
        curves = {doing.label: self.lab_app.reader.series(doing.label) for doing in snapshot.status.at_work}
        drawn = {label: rows for label, rows in curves.items() if len(rows) > 1}
        plot.display = bool(drawn)
        if drawn:
            plot.clear()
            plot.border_title = Text(f"training loss of {', '.join(drawn)}")
            for rows, style in zip(drawn.values(), itertools.cycle(LIVE)):
                plot.plot(rows[:, 0], rows[:, 2], line_style=style, hires_mode=HiResMode.BRAILLE)
