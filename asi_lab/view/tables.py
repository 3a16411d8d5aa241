"""How the lab's records look on a terminal and as JSON.

Text that a language model or a candidate wrote passes through `asi_lab.common.text.plain` and is never read
as markup. Widths are those of the console; 80 columns are enough.
"""

from __future__ import annotations

import json
import math
import shlex
import shutil
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean
from typing import Any

import msgspec
from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from asi_lab.common.text import one_line, plain
from asi_lab.events import Event, LiveAnswer
from asi_lab.lab import Lab
from asi_lab.lab.spending import Spent
from asi_lab.lab.steering import Steering
from asi_lab.records import SEED_ID, Candidate
from asi_lab.scoring.baselines import SEED_ARCHITECTURE, TITLES, Baselines
from asi_lab.view import arms
from asi_lab.view.leaderboard import Board, Row, Standing, standing
from asi_lab.view.status import Status, Work

PREFIX = "delta_net_"
"""What every candidate's name begins with."""
NAME = 60
"""Names are cut at this many characters, in tables and lines."""
LINE = 400
TAIL = 120
"""So are messages."""
QUEUE = 6
"""Candidates that are named in a line."""


class _Console(Console):
    """Leaves it to the caller what to do when nobody reads any more; rich would end the program."""

    def on_broken_pipe(self) -> None:
        raise  # what is being handled


def console(*, stderr: bool = False) -> Console:
    """A console that reads no markup and changes no text. It honours NO_COLOR and non-terminals.

    Printing to it raises OSError where what it prints to is gone, full or closed.
    """
    return _Console(file=sys.stderr if stderr else sys.stdout, markup=False, highlight=False, emoji=False)


def to_json(value: Any, indent: int | None = 2) -> str:
    """Records as JSON in ASCII, harmless on a terminal; figures that are not finite become null. Without
    `indent` on one line."""
    return json.dumps(_finite(msgspec.to_builtins(value)), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def shown(path: Path) -> str:
    """A path for a command line: relative where it lies below the working directory, and quoted."""
    return shlex.quote(str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path))


def command(lab: Lab, words: str) -> str:
    """The command line that runs `words` on this lab, as it can be typed here."""
    installed = Path(sys.executable).parent / "asi-lab"
    program = "asi-lab" if shutil.which("asi-lab") or not installed.exists() else shown(installed)
    path = shown(lab.path)
    return f"{program} {words}" if path == "lab" else f"{program} --lab {path} {words}"


def duration(seconds: float) -> str:
    """`0:09`, `12:30` or `3:07:00`."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


def grid(*widths: int | None) -> Table:
    """Columns of text without lines; None for a column that takes the rest."""
    shown = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    for width in widths:
        shown.add_column(min_width=width, max_width=width, overflow="fold")
    return shown


# The leaderboard

_COLUMNS = (
    # heading, least width, turn in which a narrow terminal drops it (0: never)
    ("#", 3, 0),
    ("id", 4, 0),
    ("name", 14, 0),
    ("arm", 10, 3),
    ("verdict", 9, 0),
    ("parent", 6, 1),
    ("loss", 7, 0),
    ("gain", 7, 4),
    ("in sd", 6, 5),
    ("benchmark", 9, 2),
    ("judge", 5, 3),
    ("fitness", 7, 0),
    ("pool", 6, 6),
)


def leaderboard(found: Board, count: int, width: int) -> RenderableType:
    """The first `count` candidates and the baselines, and below it how to read them."""
    return Group(_board(found, count, width), Text(), _verdict(found), *arms.table(found.arms, found.bar))


def _board(found: Board, count: int, width: int) -> Table:
    """The first `count` candidates and the baselines, with the columns that fit into `width`.

    The noise, one figure for all rows, stands under the heading of its column.
    """
    told = {"verdict": any(row.verdict for row in found.candidates), "arm": bool(found.arms)}
    columns = [column for column in _COLUMNS if told.get(column[0], True)]
    for turn in range(1, 7):
        if sum(least + 1 for _, least, _ in columns) - 1 <= width:
            break
        columns = [column for column in columns if column[2] != turn]
    noise = {
        "loss": f"±{found.noise.loss:.4f}",
        "benchmark": f"±{found.noise.benchmark:.2%}",
        "judge": f"±{found.noise.judge:.1f}",
        "fitness": f"±{found.noise.fitness:.4f}",
    }
    shown = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)
    rest = width - sum(least + 1 for heading, least, _ in columns if heading != "name")
    for heading, least, _ in columns:
        is_text, is_name = heading in ("name", "arm", "verdict"), heading == "name"
        shown.add_column(
            f"{heading}\n{noise.get(heading, '')}",
            justify="left" if is_text else "right",
            min_width=least,
            max_width=max(least, rest) if is_name else None,
            no_wrap=True,
            overflow="ellipsis",
        )
    for row in found.candidates[:count]:
        cells = _cells(row, rest)
        shown.add_row(*(cells[key] for key, _, _ in columns), style="bold" if row.beats_bar else None)
    for row in found.baselines:
        cells = _cells(row, rest)
        shown.add_row(*(cells[key] for key, _, _ in columns), style="dim")
    return shown


def board_json(found: Board | None, count: int) -> str:
    """The leaderboard as JSON: the fields of `Board`, empty before the baselines are measured."""
    if found is not None:
        return to_json(msgspec.structs.replace(found, candidates=found.candidates[:count]))
    empty = dict.fromkeys(Board.__struct_fields__)
    return to_json({**empty, "baselines": [], "candidates": [], "scored": 0, "beating": {}, "arms": []})


def _cells(row: Row, room: int) -> dict[str, Text]:
    """Cells by heading. A name that does not fit into `room` loses first what all names begin with."""
    name = plain(row.name, limit=NAME) if row.rank is not None else f"{TITLES[row.name]} ×{row.runs}"
    if len(name) > room and name.startswith(PREFIX):
        name = "…" + name.removeprefix(PREFIX)
    units = "-" if row.gain_in_noise is None else f"{row.gain_in_noise:+.1f}"
    return {
        "#": Text("" if row.rank is None else str(row.rank)),
        "id": Text("" if row.id is None else f"{row.id:04d}"),
        "name": Text(name),
        "arm": Text(row.arm or ""),
        "verdict": Text(row.verdict or ("not tried" if row.rank is not None else "")),
        "parent": Text("" if row.parent is None else f"{row.parent:04d}"),
        "loss": Text(f"{row.loss:.4f}"),
        "gain": Text(f"{row.gain:+.2%}"),
        "in sd": Text(f"{units}{'*' if row.beats_bar else ' '}"),
        "benchmark": Text(f"{row.benchmark_gain:+.2%}"),
        "judge": Text(f"{row.judge:.1f}{'+' if row.beyond else ''}"),
        "fitness": Text(f"{row.fitness:.4f}"),
        "pool": Text("" if row.pool is None else f"{row.pool.mean:.4f}"),
    }


def wins(found: Board) -> str:
    """How many candidates beat each reference, the bar first, beside what luck alone would give."""
    bar, *others = found.beating
    counts = ", ".join(f"{found.beating[name]} {TITLES[name]}" for name in others)
    return (
        f"{found.beating[bar]} of {found.scored} scored candidates beat {TITLES[bar]}, the bar, beyond noise "
        f"(*), {counts}; {found.expected_by_luck:.1f} would beat one by luck alone."
    )


def _verdict(found: Board) -> Text:
    """How many beat what, and what the signs mean."""
    noise = found.noise
    margins = ", ".join(f"{TITLES[name]} {margin:.4f}" for name, margin in found.margins.items())
    return Text(
        f"{wins(found)}\n"
        f"One run beats a reference where its loss lies this far (nats) under its mean: {margins}; one-sided "
        f"t-test at {found.level:.0%}.\n"
        f"±: sd of one run, known with {noise.freedom:.2g} degrees of freedom (loss: {noise.loss_low:.4f} to "
        f"{noise.loss_high:.4f} at 95 %; judge: as far as the loss moves it). ×N: mean of N runs. gain: on "
        f"{TITLES[found.bar]}. benchmark: on DeltaNet's first runs. #: by fitness, and beyond the end of the "
        "judge's scale (+) by what the loss adds there. pool: the fitness given the runs of its relatives "
        "too, by which parents are drawn."
    )


def standing_words(found: Standing) -> str:
    """How a loss stands to the bar, and which references it beats."""
    units = "" if found.bar.in_sd is None else f"{abs(found.bar.in_sd):.1f} sd, "
    side = "below" if found.bar.difference < 0 else "above"
    title = TITLES[found.bar.reference]
    others = [TITLES[name] for name in found.beats if name != found.bar.reference]
    won = "a win beyond noise" if found.bar.is_better else "no win beyond noise"
    beside = f"; beats {' and '.join(others)}" if others else ""
    return f"{abs(found.gain):.2%} {side} {title}'s, the bar ({units}{won}{beside})"


def result_lines(candidate: Candidate, baselines: Baselines) -> tuple[str, str]:
    """A scored candidate's result in two lines, each figure with its noise."""
    score, noise = candidate.score, baselines.noise()
    assert score is not None
    assert candidate.loss is not None
    losses, told = [candidate.loss], f"loss {candidate.loss:.4f} ±{noise.loss:.4f}"
    if candidate.id == SEED_ID:
        losses = [run.loss for run in baselines.evaluations(SEED_ARCHITECTURE)]
        told = f"loss {fmean(losses):.4f}, the mean of {len(losses)} runs"
    return (
        f"{told}: {standing_words(standing(losses, baselines))}",
        f"benchmark {score.benchmark_gain:+.2%} ±{noise.benchmark:.2%} on DeltaNet, "
        f"judge {score.judgement.mark:.1f} ±{noise.judge:.1f}, "
        f"fitness {score.fitness:.4f} ±{noise.fitness:.4f}",
    )


# The status

_STYLES = {"running": "green", "paused": "yellow", "lost contact": "red", "preparing data": "green"}


def status(found: Status) -> RenderableType:
    """What the lab is doing, how far it came, and what happened last."""
    table = grid(10, None)
    for heading, text in _status_rows(found):
        table.add_row(Text(heading, style="dim"), text)
    parts: list[RenderableType] = [table]
    if found.events:
        parts += [Text(), *(event_line(event) for event in found.events)]
    return Group(*parts)


def _status_rows(found: Status) -> Iterable[tuple[str, Text]]:
    yield "lab", Text(f"{one_line(found.lab)}  (preset {found.preset}, seed {found.seed})")
    yield "engine", _engine(found)
    for doing in found.at_work:
        yield "now" if doing is found.doing else "", _doing(doing, brief=bool(found.beside))
    of = f" of {found.wanted}" if found.wanted else ""
    left = ""
    if found.left is not None and found.pace is not None:
        left = f", about {duration(found.left)} left ({found.pace.basis})"
    yield "finished", Text(f"{found.finished}{of} candidates{left}")
    if found.states:
        yield "states", Text(", ".join(f"{count} {state}" for state, count in found.states.items()))
    if (spent := found.seconds) is not None:
        yield (
            "seconds",
            Text(
                f"{spent.whole:.1f} a candidate: training {spent.training:.1f}, evaluation "
                f"{spent.evaluation:.1f} (mean of the last {spent.of} scored)"
            ),
        )
    if found.queue:
        more = f", {len(found.queue) - QUEUE} more" if len(found.queue) > QUEUE else ""
        yield "queue", Text(", ".join(f"{one.id:04d} {one.state}" for one in found.queue[:QUEUE]) + more)
    if limits := budget(found):
        yield "budget", Text(limits)
    if found.claims:
        yield "claims", Text(found.claims)
    if asked := steered(found.steering):
        yield "steered", Text(asked)
    if found.spent.calls:
        yield "models", Text(costs(found.spent))
    if found.spent.gpu_seconds:
        yield "GPU", Text(f"{duration(found.spent.gpu_seconds)} of trials")
    for talk in found.talks:
        yield "talking", _talk(talk, found.time)
    board = found.board
    if board is None:
        yield "baselines", Text(f"runs measured: {found.baseline_runs}; the search starts after them")
        return
    references = (
        f"{TITLES[row.name]}{', the bar' if row.name == board.bar else ''}: loss {row.loss:.4f} "
        f"(mean of {row.runs})"
        for row in board.baselines
    )
    yield "references", Text("\n".join(references))
    if board.candidates:
        best = board.candidates[0]
        yield (
            "best",
            Text(
                f"{best.id:04d} {plain(best.name, limit=NAME)}\n"
                f"loss {best.loss:.4f}, gain {best.gain:+.2%} on {TITLES[board.bar]}"
                + ("" if best.gain_in_noise is None else f" ({best.gain_in_noise:+.1f} sd)")
                + f", fitness {best.fitness:.4f} ±{board.noise.fitness:.4f}"
            ),
        )
        yield "wins", Text(wins(board))
    if board.arms:
        yield "arms", Text(f"ended: {arms.words(board.arms)}; compared by asi-lab top")


def budget(found: Status) -> str:
    """What of the limits is used; empty where there are none."""
    limits, spent, parts = found.budget, found.spent, []
    if limits.dollars:
        parts.append(f"${spent.dollars:,.2f} of ${limits.dollars:,.2f}")
    if limits.tokens:
        parts.append(f"{spent.tokens:,} of {limits.tokens:,} tokens")
    if limits.until is not None:
        parts.append(f"{duration(max(0.0, limits.until - found.time))} of its time are left")
    return ", ".join(parts)


def steered(orders: Steering) -> str:
    """What people asked of the search, as far as it is still in force; empty where nothing is."""
    parts = [f"children of {orders.pinned:04d} only"] if orders.pinned is not None else []
    for words, numbers in (("banned", orders.banned), ("to be run again", orders.reruns)):
        parts += [f"{words}: {', '.join(f'{number:04d}' for number in numbers)}"] if numbers else []
    if waiting := orders.waiting:
        parts.append(f"{len(waiting)} {'idea waits' if len(waiting) == 1 else 'ideas wait'} for a planner")
    return "; ".join(parts)


def _engine(found: Status) -> Text:
    engine = found.engine
    text = Text(engine.words, style=_STYLES.get(engine.state, ""))
    if engine.state == "lost contact":
        text.append(f" {duration(engine.beat_age or 0)}")
    if engine.state == "never started":
        text.append(". Start it: asi-lab --no-tui", style="default")
    elif engine.state != "stopped":
        text.append(f" (process {engine.pid})" if engine.pid else "", style="default")
    elif engine.beat_age is not None:
        text.append(f" {duration(engine.beat_age)} ago")
    return text


def _doing(doing: Work, brief: bool) -> Text:
    """A trial at work; a `brief` one leaves room for others."""
    parts = [f"{doing.label} {plain(doing.name, limit=NAME)}" if doing.name else doing.label, doing.stage]
    text = Text("  ".join(parts))
    if doing.step is not None and doing.loss is not None:
        text.append(f"\nstep {doing.step} of {doing.steps}, loss {doing.loss:.4f}")
        text.append(f", {doing.tokens_per_second:,.0f} tokens/s")
    if doing.left is not None:
        left = f"about {duration(doing.left)} left"
        text.append(f"; {left}" if brief else f"\n{left} ({doing.basis})")
    return text


def costs(spent: Spent) -> str:
    """What language models have cost."""
    unknown = f" and {spent.unpriced} calls of unknown price" if spent.unpriced else ""
    return f"{spent.calls} calls, {spent.tokens:,} tokens, ${spent.dollars:,.2f}{unknown}"


def _talk(talk: LiveAnswer, now: float) -> Text:
    """Who is answering, how long, and the last words."""
    since = duration(max(0.0, now - talk.started))
    said = f"{talk.characters:,} characters in {since}" if talk.characters else f"at it for {since}"
    words = f"{talk.candidate:04d} {talk.role}, {plain(talk.model)}: {said}"
    return Text(words).append(f"\n{plain(talk.tail)[-TAIL:]}" if talk.tail else "", style="dim")


def event_line(event: Event) -> Text:
    """One event on one line: time, candidate, what happened."""
    clock = time.strftime("%H:%M:%S", time.localtime(event.time))
    label = "" if event.candidate is None else f"{event.candidate:04d} "
    style = {"error": "red", "warning": "yellow", "best": "bold green"}.get(event.kind, "")
    return Text.assemble(
        (f"{clock}  ", "dim"), (f"{label}{plain(event.message, limit=LINE)}", style or "default")
    )
