"""What the engine reports: one numbered event per change, kept in the store and shown by viewers."""

from __future__ import annotations

from typing import Any, Literal, get_args

import msgspec

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
