"""What the engine reports: numbered events, kept in the store and shown by viewers, and what is being done at
this moment, told to a `Watch`."""

from __future__ import annotations

from typing import Any, Literal, Protocol, get_args

import msgspec

from asi_lab.protocol import Progress

EventKind = Literal[
    "engine_started",
    "engine_stopped",
    "engine_paused",
    "engine_resumed",
    "candidate_proposed",
    "candidate_state",
    "candidate_repaired",
    "trial_resumed",
    "baseline_measured",
    "pool_updated",
    "standstill",
    "commit",
    "best",
    "index",
    "command",
    "repair",
    "note",
    "warning",
    "error",
]
EVENT_KINDS: frozenset[str] = frozenset(get_args(EventKind))

NewEvent = tuple[EventKind, str, dict[str, Any]]
"""An event before the store numbers it: kind, message, data."""


class Event(msgspec.Struct, frozen=True):
    """One line of the lab's history.

    `seq` counts from 1 without gaps. `time` is in seconds since the epoch. `message` is kept as it
    came and may hold hostile text: show it through `asi_lab.common.text.plain`.
    """

    seq: int
    time: float
    kind: EventKind
    candidate: int | None
    message: str
    data: dict[str, Any] = {}


class Watch(Protocol):
    """Who is told what is being done, by any thread, and lets the main thread wait."""

    def working(self, label: str, stage: str, progress: Progress | None) -> None:
        """`label` is in `stage`; `progress` is its latest point while it trains."""

    def over(self, label: str) -> None:
        """Nothing is done about `label` any more."""

    def tick(self) -> None:
        """Called by the main thread a few times a second while it waits; may raise `StopNow`."""

    @property
    def cut_off(self) -> bool:
        """Whether all is to end at once, though the main thread may not have looked yet."""
