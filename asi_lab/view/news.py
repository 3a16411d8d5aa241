"""What is new in a lab since the last look."""

from __future__ import annotations

from asi_lab.events import Event
from asi_lab.lab import Store


class News:
    """Follows a lab's events, beginning with the latest `count`, and the state of its engine."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._seen: int | None = None
        self._state = ""

    def look(self, store: Store) -> list[Event]:
        """The events since the last look, oldest first."""
        found = store.last_events(max(1, self._count)) if self._seen is None else []
        if self._seen is None:
            self._seen = found[-1].seq if found else 0
            return found[-self._count :] if self._count else []
        while more := store.events(self._seen):
            found += more
            self._seen = more[-1].seq
        return found

    def told(self, state: str) -> bool:
        """Whether the engine's state is another one than at the last look."""
        changed, self._state = state != self._state, state
        return changed
