"""What the engine reports: numbered events, kept in the store and shown by viewers, and what is being done at
this moment, told to a `Watch`."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any, Literal, Protocol, get_args

import msgspec
from msgspec import UNSET, UnsetType

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


class LiveAnswer(msgspec.Struct, frozen=True):
    """A language model's answer in the making. `started` is in seconds since the epoch; `tail` is its end."""

    candidate: int
    role: str
    model: str
    started: float
    characters: int = 0
    tail: str = ""


class Doing(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is being done about the run called `label`; `progress` is its latest point while it trains."""

    label: str
    stage: str
    progress: Progress | None = None


class Heartbeat(msgspec.Struct, frozen=True):
    """What the engine tells viewers about itself once a second. Times are in seconds since the epoch.

    `experiments` is how many candidates the lab is to hold, `until` when the search ends by itself, `ordered`
    the order that is not carried out yet. The oldest run at work is in `label`, `stage` and `progress`, left
    out where none is; the others are in `beside`. `talks` are answers in the making.
    """

    pid: int
    time: float
    state: Literal["running", "paused", "stopped"]
    experiments: int | None = None
    started: float | None = None
    until: float | None = None
    ordered: str = ""
    talks: tuple[LiveAnswer, ...] = ()
    beside: tuple[Doing, ...] = ()
    slots: int = 1
    label: str | UnsetType = UNSET
    stage: str | UnsetType = UNSET
    progress: Progress | UnsetType = UNSET

    @property
    def doing(self) -> tuple[Doing, ...]:
        """All that is being done, in the order in which it began."""
        if self.label is UNSET:
            return ()
        return Doing(self.label, self.stage or "", self.progress or None), *self.beside


class Watch(Protocol):
    """Who is told what is being done, by any thread, and lets the main thread wait."""

    def working(self, label: str, stage: str, progress: Progress | None) -> None:
        """`label` is in `stage`; `progress` is its latest point while it trains."""

    def over(self, label: str) -> None:
        """Nothing is done about `label` any more."""

    def follow(self, work: Future[Any], *, heed: bool = False) -> None:
        """`work` was begun in another thread: until it is done, something is at work. What it raises is
        raised by the next `tick` if that is to `heed` it."""

    def tick(self) -> None:
        """Called by the main thread a few times a second while it waits.

        Raises:
            StopNow: all is to end at once.
            Exception: whatever work that is heeded has raised.
        """

    @property
    def cut_off(self) -> bool:
        """Whether all is to end at once, though the main thread may not have looked yet."""
