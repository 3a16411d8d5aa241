"""Training curves: the selected candidate, what was marked, its parent and the baselines."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Static
from textual_plot import HiResMode, PlotWidget

from asi_lab.baselines import ARCHITECTURES
from asi_lab.tui.panes.pane import Pane, following
from asi_lab.tui.snapshot import Snapshot

AXES = {"step": 0, "tokens": 1, "seconds": 6}
"""What may stand on the x axis, with its column of a series."""
SMOOTH = 0.9
COLOURS = ("cyan", "green", "white", "blue", "magenta")


class Curves(Pane):
    """A plot that can be zoomed and moved, with raw points under the smoothed lines."""

    DEFAULT_CSS = """
    Curves #legend { height: auto; max-height: 4; padding: 0 1; }
    Curves PlotWidget { height: 1fr; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("m", "mark", "Mark"),
        Binding("x", "axis", "x axis"),
        Binding("l", "log", "Log"),
    ]

    def __init__(self) -> None:
        super().__init__(id="curves")
        self._axis, self._log = "step", False
        self._marked: list[int] = []
        self._drawn: object = None

    def compose(self) -> ComposeResult:
        """What is drawn, in words, above the plot."""
        yield Static(id="legend", markup=False)
        yield PlotWidget(id="plot")

    def begin(self) -> None:
        """The keys go to the plot."""
        self.query_one(PlotWidget).focus()

    def show(self, snapshot: Snapshot) -> None:
        """Draw again where a curve may have grown."""
        doing = snapshot.status.doing
        state = (self.lab_app.selected, doing and (doing.label, doing.step), len(snapshot.summaries))
        if state != self._drawn:
            self._drawn = state
            self._draw()

    def select(self, candidate_id: int | None) -> None:
        """Draw another candidate."""
        self._draw()

    def action_mark(self) -> None:
        """Keep the selected candidate's curve in view, or no longer."""
        number = self.lab_app.selected
        if number is None:
            return
        if number in self._marked:
            self._marked.remove(number)
        else:
            self._marked = [*self._marked, number][-len(COLOURS) + 1 :]
        self._draw()

    def action_axis(self) -> None:
        """Put something else on the x axis."""
        self._axis = following(AXES, self._axis)
        self._draw()

    def action_log(self) -> None:
        """Draw the logarithm of the loss, or the loss."""
        self._log = not self._log
        self._draw()

    def _draw(self) -> None:
        plot, legend = self.query_one(PlotWidget), []
        plot.clear()
        number = self.lab_app.selected
        labels = [f"{n:04d}" for n in dict.fromkeys([*([number] if number else []), *self._marked])]
        with self.lab_app.reader.store() as store:
            if store is not None:
                for name in ARCHITECTURES:
                    rows = store.series(f"{name}-seed0")
                    colour = "yellow" if name == ARCHITECTURES[0] else "red"
                    legend.append(self._one(plot, name, rows, colour))
                for label, colour in zip(labels, COLOURS, strict=False):
                    legend.append(self._one(plot, label, store.series(label), colour))
        plot.set_xlabel(self._axis)
        plot.set_ylabel("log loss" if self._log else "loss")
        self.query_one("#legend", Static).update("   ".join(filter(None, legend)) or "No curves yet.")

    def _one(self, plot: PlotWidget, label: str, rows: NDArray[np.float32], colour: str) -> str:
        """Draw one curve; returns its words for the legend."""
        finite = rows[np.isfinite(rows[:, 2])]
        if len(finite) < 2:
            return f"{label}: no curve"
        x, loss = finite[:, AXES[self._axis]].astype(float), finite[:, 2].astype(float)
        smooth = (_averaged(loss) + _averaged(loss[::-1])[::-1]) / 2  # both ways: neither late nor early
        if self._log:
            loss, smooth = np.log(np.maximum(loss, 1e-9)), np.log(np.maximum(smooth, 1e-9))
        every = max(1, len(x) // 200)
        plot.scatter(x[::every], loss[::every], marker="·", marker_style="grey42")
        plot.plot(x, smooth, line_style=colour, hires_mode=HiResMode.BRAILLE)
        lost = len(rows) - len(finite)
        return f"{label} ({colour}): {smooth[-1]:.3f}{f', {lost} not finite' if lost else ''}"


def _averaged(loss: NDArray[np.float64]) -> NDArray[np.float64]:
    """The exponential moving average."""
    found = loss.copy()
    for i in range(1, len(found)):
        found[i] = SMOOTH * found[i - 1] + (1 - SMOOTH) * loss[i]
    return found
