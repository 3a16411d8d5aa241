"""Answers of language models while they arrive. Viewers see them in the engine's heartbeat; what is complete
is in the transcripts."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec

from asi_lab.events import LiveAnswer

TAIL = 400
"""Characters of an answer in the making that are shown."""


class LiveAnswers:
    """The answers that arrive now, each in a thread of its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answers: dict[int, LiveAnswer] = {}

    @contextmanager
    def heard(self, candidate: int, role: str, model: str) -> Iterator[Callable[[str], None]]:
        """One conversation, from its first question to its answer; gives what takes the pieces of answers."""
        key = threading.get_ident()
        with self._lock:
            self._answers[key] = LiveAnswer(candidate, role, model, time.time())
        try:
            yield functools.partial(self._hear, key)
        finally:
            with self._lock:
                self._answers.pop(key, None)

    def now(self) -> list[LiveAnswer]:
        """All of them, by candidate."""
        with self._lock:
            return sorted(self._answers.values(), key=lambda one: (one.candidate, one.started))

    def _hear(self, key: int, piece: str) -> None:
        with self._lock:
            if (one := self._answers.get(key)) is not None:
                tail, heard = (one.tail + piece)[-TAIL:], one.characters + len(piece)
                self._answers[key] = msgspec.structs.replace(one, characters=heard, tail=tail)
