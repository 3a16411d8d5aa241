"""The two lines above the panes: how the search stands, and which pane is in view."""

from __future__ import annotations

import time
from collections.abc import Iterable

from rich.style import Style
from rich.text import Text

from asi_lab.tui.recording import PlaybackClock
from asi_lab.tui.snapshot import Snapshot
from asi_lab.view.tables import duration

SIGNS = {"running": "▶", "paused": "⏸", "stopped": "■", "lost contact": "✗"}
STALE_SECONDS = 2.0


def heading(snapshot: Snapshot, age: float, clock: PlaybackClock | None, readonly: bool, label: str) -> Text:
    """State, elapsed time, how far the search is, its best, and the data's `age` in seconds; a recording has
    a `clock`."""
    status = snapshot.status
    words = _played(clock) if clock else _engine(snapshot)
    words.append("  read-only" if readonly else "", style="dim")
    wanted = f" of {status.wanted}" if status.wanted else ""
    words.append(f"   {status.finished}{wanted} candidates")
    if status.board and status.board.candidates:
        best = status.board.candidates[0]
        gain = f"(gain {best.gain:+.2%} on the bar)".replace(" ", "\N{NO-BREAK SPACE}")
        words.append(f"   best {best.id:04d} loss {best.loss:.4f} {gain}")
    if age >= STALE_SECONDS:
        words.append(f"   read {age:.0f} s ago", style="dim")
    words.append(f"   {label}" if label else "", style="dim")
    return words


def _engine(snapshot: Snapshot) -> Text:
    engine = snapshot.status.engine
    words = Text(f"{SIGNS.get(engine.state, '◌')} {engine.pending or engine.state}", style="bold")
    if engine.state == "lost contact" and engine.beat_age is not None:
        words.append(f" {duration(engine.beat_age)}")
    elif engine.is_there and engine.started is not None:
        words.append(f" {duration(max(0.0, snapshot.status.time - engine.started))}")
    return words


def _played(clock: PlaybackClock) -> Text:
    """Where a recording stands."""
    sign = "■" if clock.over else "⏸" if clock.held else "▶"
    moment = time.strftime("%H:%M:%S", time.localtime(clock.now))
    return Text(f"{sign} recording {moment} ×{clock.speed}", style="bold")


def tabs(names: Iterable[str], current: str, width: int) -> Text:
    """The panes with their keys, in full where there is room."""
    found = list(names)
    words, room = Text(no_wrap=True), width // len(found) - 4
    for number, name in enumerate(found, start=1):
        chosen = name == current
        style = Style(bold=chosen, reverse=chosen, meta={"key": str(number)})
        words.append(f"{number} {name if chosen else name[:room]}", style=style).append(" ")
    return words
