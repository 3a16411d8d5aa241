"""How a race looks on a terminal: 80 columns are enough."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from asi_lab.common.text import plain
from asi_lab.scoring.races import Figure, Race, accuracy_of
from asi_lab.view.rates import rates

TASK_WIDTH = 18
"""Columns of a task's score; more tasks than fit side by side go into further tables."""
WHY = 200
"""Characters of the reason of a failure."""


def race(found: Race, width: int) -> RenderableType:
    """The lanes with their differences to the first, their scores in each task, and how to read them."""
    parts = [*_lanes(found, width)]
    if found.own is not None and found.own.lanes:
        own = Text(f"At own best learning rates; differences are to {found.own.lanes[0].architecture}:")
        parts += [Text(), own, Text(), _losses(found.own)]
    if found.tuning is not None and found.tuning.rates:
        parts += [Text(), rates(found)]
    if found.failed:
        parts.append(Text())
    for run in found.failed:
        parts.append(Text(f"{run.words} failed: {plain(run.why, limit=WHY)}", style="yellow"))
    return Group(*parts)


def _lanes(found: Race, width: int) -> Iterator[RenderableType]:
    if not found.lanes:
        yield Text("No run is finished yet.")
        return
    yield _losses(found)
    room = max(1, (width - max(len(lane.architecture) for lane in found.lanes)) // TASK_WIDTH)
    columns = [(task.task, task.score_name) for task in found.tasks]
    if found.lanes[0].average is not None:
        columns.append(("average", "higher is better"))
    for first in range(0, len(columns), room):
        yield from (Text(), _scores(found, columns[first : first + room]))
    yield from (Text(), _explained(found))


def _explained(found: Race) -> Text:
    first = found.lanes[0].architecture
    if found.noise:
        differences = (
            f"± in a heading is the sd of one run, pooled. Differences are to {first}, with 95 % intervals "
            "from each architecture's own sd, moderated by the others'; * marks those beyond chance at 5 %, "
            "which one comparison in twenty is without a cause, and more with fewer than five runs."
        )
    else:
        differences = f"Differences are to {first}. One run of each does not tell noise: ask for more seeds."
    if found.lanes[0].accuracies:
        differences += " In brackets: accuracy, which enters no score, and its sd."
    return Text(f"{differences} Speeds are those of this machine in training, at the time of each run.")


def _losses(found: Race) -> Table:
    shown = _table(found)
    loss, benchmark = "loss", "benchmark"
    if found.noise:
        loss, benchmark = f"loss\n±{found.noise['loss']:.4f}", f"benchmark\n±{found.noise['benchmark']:.2%}"
    for heading in ("runs", loss, "difference\n95 %", benchmark, "params\n1e6", "tok/s"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for lane in found.lanes:
        shown.add_row(
            lane.architecture,
            str(lane.runs),
            f"{lane.loss.mean:.4f}",
            _difference(lane.loss),
            f"{round(lane.benchmark.mean, 4) + 0.0:+.2%}{_star(lane.benchmark)}",  # never -0.00%
            f"{lane.params / 1e6:,.3f}" if lane.params < 1e7 else f"{lane.params / 1e6:,.1f}",
            _speed(lane.tokens_per_second),
        )
    return shown


def _scores(found: Race, columns: Sequence[tuple[str, str]]) -> Table:
    shown = _table(found)
    for task, score_name in columns:
        noise = f"\n±{found.noise[task]:.4f}" if task in found.noise else ""
        right = found.noise.get(accuracy_of(task))
        noise += f" ({right:.3f})" if right is not None else ""
        shown.add_column(f"{plain(task)}\n{plain(score_name)}{noise}", justify="right")
    for lane in found.lanes:
        figures = {"average": lane.average, **lane.tasks}
        accuracies = {"average": lane.average_accuracy, **lane.accuracies}
        shown.add_row(lane.architecture, *(_cell(figures[t], accuracies.get(t)) for t, _ in columns))
    return shown


def _cell(score: Figure | None, accuracy: Figure | None) -> str:
    """A score, with the accuracy in brackets."""
    right = "" if accuracy is None else f" ({accuracy.mean:.3f})"
    return "" if score is None else f"{score.mean:.4f}{_star(score)}{right}"


def _table(found: Race) -> Table:
    shown = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)
    shown.add_column(f"preset {found.preset}", no_wrap=True, overflow="ellipsis")
    return shown


def _speed(tokens_per_second: float) -> str:
    return f"{tokens_per_second:,.0f}" if tokens_per_second < 1e6 else f"{tokens_per_second / 1e6:,.1f}M"


def _difference(found: Figure) -> str:
    if found.difference is None:
        return ""
    interval = "" if found.interval is None else f" ±{found.interval:.4f}"
    return f"{found.difference:+.4f}{interval}{_star(found)}"


def _star(found: Figure) -> str:
    return "*" if found.beyond_noise else " "
