"""Training curves: the selected candidate, the marked ones and the baselines, with values at a crosshair."""

from __future__ import annotations

from typing import ClassVar

import msgspec
import numpy as np
from numpy.typing import NDArray
from rich.text import Text
from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Static
from textual_hires_canvas import Canvas
from textual_plot import HiResMode, PlotWidget

from asi_lab.lab import run_label, trial_label
from asi_lab.records import CandidateState
from asi_lab.scoring.baselines import ARCHITECTURES
from asi_lab.tui.linetable import LOADING
from asi_lab.tui.panes.pane import Pane, following
from asi_lab.tui.snapshot import Snapshot

AXES = {"step": 0, "tokens": 1, "seconds": 6}
"""What may stand on the x axis, with its column of a series."""
SMOOTH = 0.9
MOST_POINTS = 200
COLOURS = ("cyan", "green", "blue", "magenta", "white")
REFERENCE_COLOURS = ("yellow", "red", "bright_black")
CUT_SHORT = frozenset({CandidateState.PRUNED, CandidateState.DIVERGED, CandidateState.SLOW})
STEPS = 100
"""Positions of the crosshair over the width of the plot."""


class Curve(msgspec.Struct, frozen=True):
    """One curve: `x`, raw `loss` and `smooth` loss over it `[N]`, and the x of points that were not
    finite."""

    label: str
    colour: str
    x: NDArray[np.float64]
    loss: NDArray[np.float64]
    smooth: NDArray[np.float64]
    lost: NDArray[np.float64]
    end: str = ""

    def at(self, x: float) -> float | None:
        """The smoothed loss there, None beyond the curve."""
        if not len(self.x) or not self.x[0] <= x <= self.x[-1]:
            return None
        return float(np.interp(x, self.x, self.smooth))


class Curves(Pane):
    """A plot that can be zoomed and moved, with raw points under the smoothed lines."""

    DEFAULT_CSS = """
    Curves #legend { height: auto; max-height: 6; padding: 0 1; }
    Curves PlotWidget { height: 1fr; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("a", "axis", "x axis", id="curves.axis"),
        Binding("l", "log", "Log", id="curves.log"),
        Binding("full_stop", "cross(1)", "Crosshair", id="curves.right"),
        Binding("comma", "cross(-1)", "Crosshair back", show=False, id="curves.left"),
        Binding("greater_than_sign", "cross(10)", "Crosshair far", show=False, id="curves.far-right"),
        Binding("less_than_sign", "cross(-10)", "Crosshair far back", show=False, id="curves.far-left"),
        Binding("escape", "no_cross", "No crosshair", show=False, id="curves.no-crosshair"),
    ]
    KEPT = ("axis", "logarithmic")

    def __init__(self) -> None:
        super().__init__(id="curves")
        self.axis, self.logarithmic = "step", False
        self._cross: float | None = None
        self._curves: list[Curve] = []
        self._drawn: object = None

    def compose(self) -> ComposeResult:
        """What is drawn, in words, above the plot."""
        yield Static(id="legend", markup=False)
        yield PlotWidget(id="plot")

    def begin(self) -> None:
        """The keys go to the plot."""
        self.screen.set_focus(self.query_one(PlotWidget))

    def show(self, snapshot: Snapshot) -> None:
        """Draw again where a curve may have grown."""
        shown, labels = (self.lab_app.selected, *self.lab_app.marks), self._labels()
        growing = [(doing.label, doing.step) for doing in snapshot.status.at_work if doing.label in labels]
        state = (shown, growing, snapshot.status.baseline_runs, self._ends(snapshot))
        if state != self._drawn:
            self._drawn = state
            self._read(snapshot)

    def select(self, candidate_id: int | None) -> None:
        """Draw another candidate."""
        if (snapshot := self.lab_app.snapshot) is not None:
            self.show(snapshot)

    def action_axis(self) -> None:
        """Put something else on the x axis, on which a zoom means nothing."""
        self.axis, self._cross = following(AXES, self.axis), None
        self.query_one(PlotWidget).set_xlimits()
        self._again()

    def action_log(self) -> None:
        """Draw the logarithm of the loss, or the loss."""
        self.logarithmic = not self.logarithmic
        self.query_one(PlotWidget).set_ylimits()
        self._again()

    def action_cross(self, by: int) -> None:
        """Move the crosshair, which begins in the middle."""
        left, right = self._limits()
        step = (right - left) / STEPS
        here = (left + right) / 2 if self._cross is None else self._cross + by * step
        self._cross = min(max(left, here), right)
        self._draw()

    def action_no_cross(self) -> None:
        """Take the crosshair away."""
        self._cross = None
        self._draw()

    def on_click(self, event: events.Click) -> None:
        """Put the crosshair there."""
        plot = self.query_one(PlotWidget)
        canvas = plot.query_one("#plot")
        if canvas.region.contains(event.screen_x, event.screen_y):
            x, _ = plot.get_coordinate_from_pixel(
                event.screen_x - canvas.region.x, event.screen_y - canvas.region.y
            )
            self._cross = x
            self._draw()

    def on_resize(self) -> None:
        """The legend has other room."""
        if self._curves:
            self.query_one("#legend", Static).update(self._legend())

    def _limits(self) -> tuple[float, float]:
        """From where to where x goes; of what was not zoomed the plot knows only once it is drawn."""
        plot, ends = self.query_one(PlotWidget), [c.x[[0, -1]] for c in self._curves if len(c.x) > 1]
        left = np.min(ends) if ends and plot._auto_x_min else plot._x_min
        right = np.max(ends) if ends and plot._auto_x_max else plot._x_max
        return float(left), float(right)

    def _labels(self) -> list[str]:
        shown = dict.fromkeys(n for n in (self.lab_app.selected, *self.lab_app.marks) if n)
        return [trial_label(number) for number in shown]

    def _ends(self, snapshot: Snapshot) -> tuple[str, ...]:
        """How the curves that are shown came to an end, where they were cut short."""
        states = {trial_label(s.id): s.state for s in snapshot.summaries if s.state in CUT_SHORT}
        return tuple(states[label].value if label in states else "" for label in self._labels())

    def _again(self) -> None:
        if (snapshot := self.lab_app.snapshot) is not None:
            self._read(snapshot)

    def _read(self, snapshot: Snapshot) -> None:
        """Read the curves and draw them."""
        bar = [snapshot.board.bar] if snapshot.board else []
        names = dict.fromkeys((*ARCHITECTURES, *bar))
        named = [
            (run_label(n, 0), n, colour, "") for n, colour in zip(names, REFERENCE_COLOURS, strict=False)
        ]
        for run, colour, end in zip(self._labels(), COLOURS, self._ends(snapshot), strict=False):
            named.append((run, run, colour, end))
        self._curves = [
            self._curve(self.lab_app.reader.series(run), title, colour, end)
            for run, title, colour, end in named
        ]
        self._draw()

    def _curve(self, rows: NDArray[np.float32], label: str, colour: str, end: str) -> Curve:
        is_finite = np.isfinite(rows[:, 2])
        x = rows[:, AXES.get(self.axis, 0)].astype(float)
        loss = rows[is_finite, 2].astype(float)
        smooth = (_averaged(loss) + _averaged(loss[::-1])[::-1]) / 2  # both ways: neither late nor early
        if self.logarithmic:
            loss, smooth = np.log(np.maximum(loss, 1e-9)), np.log(np.maximum(smooth, 1e-9))
        return Curve(label, colour, x[is_finite], loss, smooth, x[~is_finite], end)

    def _draw(self) -> None:
        plot = self.query_one(PlotWidget)
        plot.clear()
        for curve in self._curves:
            if len(curve.x) > 1:
                every = max(1, len(curve.x) // MOST_POINTS)
                plot.scatter(curve.x[::every], curve.loss[::every], marker="·", marker_style="grey42")
        for curve in self._curves:
            if len(curve.x) > 1:
                plot.plot(curve.x, curve.smooth, line_style=curve.colour, hires_mode=HiResMode.BRAILLE)
                self._mark(plot, curve)
        if self._cross is not None:
            plot.add_v_line(self._cross, line_style="bold")
        plot.query_one("#margin-top", Canvas).reset()  # else the label of y is written over the last one
        plot.set_xlabel(self.axis)
        plot.set_ylabel("log loss" if self.logarithmic else "loss")
        self.query_one("#legend", Static).update(self._legend())

    def _mark(self, plot: PlotWidget, curve: Curve) -> None:
        """Where the loss was not finite, and where the run was cut short."""
        if len(curve.lost):
            bottom = np.full(len(curve.lost), curve.smooth.min())
            plot.scatter(curve.lost, bottom, marker="!", marker_style=f"bold {curve.colour}")
        if curve.end:
            plot.scatter(curve.x[-1:], curve.smooth[-1:], marker="✗", marker_style=f"bold {curve.colour}")

    def _legend(self) -> Text:
        words = Text()
        if self._cross is not None:
            words.append(f"at {self.axis} {self._cross:,.0f}:\n", style="bold")
        room = width = max(20, self.size.width - 2)
        for curve in self._curves:
            item = Text("━━ ", style=curve.colour).append(f"{self._said(curve)}   ", style="default")
            if item.cell_len > room:
                words.append("\n")
                room = width
            words.append_text(item)
            room -= item.cell_len
        return words if self._curves else Text(LOADING)

    def _said(self, curve: Curve) -> str:
        if len(curve.x) < 2:
            return f"{curve.label}: no curve"
        value = curve.at(self._cross) if self._cross is not None else float(curve.smooth[-1])
        said = f"{curve.label} ({curve.colour}): " + ("-" if value is None else f"{value:.3f}")
        said += f", {len(curve.lost)} not finite (!)" if len(curve.lost) else ""
        return said + (f", {curve.end} (✗)" if curve.end else "")


def _averaged(loss: NDArray[np.float64]) -> NDArray[np.float64]:
    """The exponential moving average."""
    found = loss.copy()
    for i in range(1, len(found)):
        found[i] = SMOOTH * found[i - 1] + (1 - SMOOTH) * loss[i]
    return found
