"""What the panes show: everything that a poll found in the lab, as one value."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import msgspec

from asi_lab.errors import LabError, StoreError
from asi_lab.events import Event
from asi_lab.lab import Lab
from asi_lab.records import Candidate
from asi_lab.settings import Settings
from asi_lab.store import Store
from asi_lab.summary import Summary
from asi_lab.view import leaderboard, status
from asi_lab.view.leaderboard import Board
from asi_lab.view.status import Status

MOST_EVENTS = 2000
"""The latest events that are kept for showing."""

WHOLE_SECONDS = 60.0
"""After so long all candidates are read again; between, those that events speak of."""


class Snapshot(msgspec.Struct, frozen=True):
    """A lab at one moment. `summaries` are all candidates by id, `events` the latest ones, oldest first."""

    status: Status
    board: Board | None = None
    summaries: tuple[Summary, ...] = ()
    events: tuple[Event, ...] = ()


class Reader:
    """Reads a lab again and again, from any thread; what did not change is not read twice.

    The store is opened when it is there, and opened anew where it was replaced.
    """

    def __init__(self, lab: Lab) -> None:
        """Raises `ConfigError` where the lab's settings are wrong."""
        self.lab: Lab = lab
        self.settings: Settings = lab.settings()
        self._store: Store | None = None
        self._lock = threading.Lock()
        self._seen, self._whole = 0, 0.0
        self._events: tuple[Event, ...] = ()
        self._by_id: dict[int, Summary] = {}
        self._summaries: tuple[Summary, ...] = ()
        self._board: Board | None = None

    def read(self) -> Snapshot:
        """Look once.

        Raises:
            LabError: the lab cannot be read, or is gone.
        """
        with self._lock:
            if not self.lab.exists:
                self._forget()
                raise StoreError(f"The lab is gone: {self.lab.path}")
            try:
                return self._read(self._opened())
            except LabError:
                self._forget()
                raise

    def candidate(self, number: int) -> Candidate | None:
        """The record of a candidate, None where there is none."""
        with self._lock:
            store = self._opened()
            return None if store is None else store.get(number)

    @contextmanager
    def store(self) -> Iterator[Store | None]:
        """The open store for a few short reads; None before an engine has made one."""
        with self._lock:
            yield self._opened()

    def close(self) -> None:
        """Close the store."""
        with self._lock:
            self._forget()

    def _opened(self) -> Store | None:
        if self._store is None and self.lab.has_results():
            self._store = Store.open_readonly(self.lab.store)
        return self._store

    def _forget(self) -> None:
        if self._store is not None:
            self._store.close()
        self._store, self._seen, self._whole = None, 0, 0.0
        self._events, self._by_id, self._summaries, self._board = (), {}, (), None

    def _read(self, store: Store | None) -> Snapshot:
        if store is None:
            return Snapshot(status.read(self.lab, self.settings, None))
        news = self._news(store)
        if news:
            self._events = (*self._events, *news)[-MOST_EVENTS:]
        if self._renewed(store, news):
            self._summaries = tuple(self._by_id[number] for number in sorted(self._by_id))
            known = leaderboard.measured(self.settings, store.baselines())
            self._board = None if known is None else leaderboard.board(known, self._summaries)
        found = status.read(self.lab, self.settings, store, known=(self._summaries, self._board))
        return Snapshot(found, self._board, self._summaries, self._events)

    def _renewed(self, store: Store, news: Sequence[Event]) -> bool:
        """Read those candidates again that events speak of, now and then all; whether anything changed."""
        if not self._by_id or time.monotonic() - self._whole > WHOLE_SECONDS:
            self._whole = time.monotonic()
            read = {summary.id: summary for summary in store.summaries()}
        else:
            numbers = {event.candidate for event in news if event.candidate is not None}
            read = {number: summary for number in numbers if (summary := store.summary(number)) is not None}
        changed = {number: s for number, s in read.items() if self._by_id.get(number) != s}
        self._by_id |= changed
        return bool(changed) or any(event.kind == "baseline_measured" for event in news)

    def _news(self, store: Store) -> list[Event]:
        """Events since the last look; at the first one the latest of all."""
        news: list[Event] = []
        if not self._seen:
            news = store.last_events(MOST_EVENTS)
        else:
            while more := store.events(news[-1].seq if news else self._seen):
                news += more
        if news:
            self._seen = news[-1].seq
        return news
