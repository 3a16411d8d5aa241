"""Who talks with which language model at this moment, and what it has said so far.

Viewers see it through the engine's heartbeat. What is complete is in the transcripts.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec

TAIL = 400
"""Characters of an answer in the making that are shown."""


class LiveAnswer(msgspec.Struct, frozen=True):
    """An answer in the making. `started` is in seconds since the epoch; `tail` is its end."""

    candidate: int
    role: str
    model: str
    started: float
    characters: int = 0
    tail: str = ""


class LiveAnswers:
    """The answers in the making; many threads talk at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._talks: dict[int, LiveAnswer] = {}

    @contextmanager
    def talk(self, candidate: int, role: str, model: str) -> Iterator[Callable[[str], None]]:
        """One conversation, from its first question to its answer; gives what takes the pieces of answers."""
        key = threading.get_ident()
        with self._lock:
            self._talks[key] = LiveAnswer(candidate, role, model, time.time())
        try:
            yield functools.partial(self._hear, key)
        finally:
            with self._lock:
                self._talks.pop(key, None)

    def now(self) -> list[LiveAnswer]:
        """All of them, by candidate."""
        with self._lock:
            return sorted(self._talks.values(), key=lambda talk: (talk.candidate, talk.started))

    def _hear(self, key: int, piece: str) -> None:
        with self._lock:
            if (talk := self._talks.get(key)) is not None:
                tail, heard = (talk.tail + piece)[-TAIL:], talk.characters + len(piece)
                self._talks[key] = msgspec.structs.replace(talk, characters=heard, tail=tail)
