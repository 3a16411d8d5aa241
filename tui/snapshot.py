"""What the panes show: everything that a poll found in the lab, as one value, and where more is read from."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from asi_lab.common.machine import Gauge, Machine
from asi_lab.errors import LabError, StoreError
from asi_lab.events import Event
from asi_lab.lab import Lab, Store, steering
from asi_lab.lab.spending import Cost
from asi_lab.lab.steering import Note
from asi_lab.lab.store import SERIES_COLUMNS
from asi_lab.lab.summary import Summary
from asi_lab.llm import bandit
from asi_lab.llm.choice import arms_of
from asi_lab.llm.record import Exchange
from asi_lab.records import Candidate
from asi_lab.scoring.baselines import Baselines
from asi_lab.settings import Settings
from asi_lab.view import leaderboard, page, status, transcript
from asi_lab.view.leaderboard import Board
from asi_lab.view.page import Dossier
from asi_lab.view.status import Status

MOST_EVENTS = 2000
"""The latest events that are kept for showing."""

WHOLE_SECONDS = 60.0
"""After so long all candidates are read again; between, those that events speak of."""

NO_CURVE: NDArray[np.float32] = np.zeros((0, len(SERIES_COLUMNS)), np.float32)


class Snapshot(msgspec.Struct, frozen=True):
    """A lab at one moment. `summaries` are all candidates by id, `events` the latest ones, oldest first;
    `notes` are those of people, by candidate; `machine` is None in a recording."""

    status: Status
    board: Board | None = None
    summaries: tuple[Summary, ...] = ()
    events: tuple[Event, ...] = ()
    notes: Mapping[int, Note] = {}
    machine: Machine | None = None

    @property
    def best(self) -> int | None:
        """The best candidate of the leaderboard."""
        return self.board.candidates[0].id if self.board and self.board.candidates else None


class Source(Protocol):
    """Where panes read from: a lab as it is now, or a recording of one. Usable from any thread.

    All methods raise `LabError` where the lab cannot be read, or is gone.
    """

    lab: Lab
    settings: Settings

    def read(self) -> Snapshot:
        """Look once."""

    def candidate(self, number: int) -> Candidate | None:
        """The record of a candidate, None where there is none."""

    def dossier(self, number: int) -> Dossier | None:
        """What a candidate's page is made of, None where there is no such candidate."""

    def series(self, run: str) -> NDArray[np.float32]:
        """A run's training curve `[N, 7]`, with the columns of `SERIES_COLUMNS`; empty for an unknown run."""

    def calls(self, number: int) -> list[Exchange]:
        """The calls to language models that were made for a candidate."""

    def costs(self, number: int) -> list[Cost]:
        """The ledger's entries of a candidate."""

    def arms(self) -> list[bandit.Arm]:
        """The state of the bandit over the planners."""

    def close(self) -> None:
        """Close what is open."""


class Reader:
    """Reads a lab again and again; what did not change is not read twice.

    The store is opened when it is there, and opened anew where it was replaced.
    """

    def __init__(self, lab: Lab) -> None:
        """Raises `ConfigError` where the lab's settings are wrong."""
        self.lab: Lab = lab
        self.settings: Settings = lab.settings()
        self._store: Store | None = None
        self._lock, self._gauge = threading.Lock(), Gauge()
        self._forget()

    def read(self) -> Snapshot:
        """Look once."""
        with self._lock:
            if not self.lab.exists:
                self._forget()
                raise StoreError(f"The lab is gone: {self.lab.path}")
            try:
                found = self._read(self._opened())
                return msgspec.structs.replace(found, machine=self._gauge.read(self.lab.path))
            except OSError:
                raise StoreError(f"The lab is gone: {self.lab.path}") from None
            except LabError:
                self._forget()
                raise

    def candidate(self, number: int) -> Candidate | None:
        """The record of a candidate."""
        with self._lock:
            store = self._opened()
            return None if store is None else store.get(number)

    def dossier(self, number: int) -> Dossier | None:
        """What a candidate's page is made of."""
        with self._lock:
            store = self._opened()
            found = None if store is None else store.get(number)
            if store is None or found is None:
                return None
            return page.dossier(found, store, self.settings, self._board)

    def series(self, run: str) -> NDArray[np.float32]:
        """A run's training curve."""
        with self._lock:
            store = self._opened()
            return NO_CURVE if store is None else store.series(run)

    def calls(self, number: int) -> list[Exchange]:
        """The calls to language models for a candidate."""
        with self._lock:
            store = self._opened()
            return [] if store is None else transcript.recorded(store, number)

    def costs(self, number: int) -> list[Cost]:
        """The ledger's entries of a candidate."""
        with self._lock:
            store = self._opened()
            return [] if store is None else list(store.ledger.entries(f"{number}/").values())

    def arms(self) -> list[bandit.Arm]:
        """The state of the bandit."""
        with self._lock:
            store = self._opened()
            return [] if store is None else arms_of(self.settings.agents, store)

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
        self._events: tuple[Event, ...] = ()
        self._by_id: dict[int, Summary] = {}
        self._summaries: tuple[Summary, ...] = ()
        self._board: Board | None = None
        self._notes: Mapping[int, Note] = {}

    def _read(self, store: Store | None) -> Snapshot:
        if store is None:
            return Snapshot(status.read(self.lab, self.settings, None))
        first, news = not self._seen, self._news(store)
        if news:
            self._events = (*self._events, *news)[-MOST_EVENTS:]
        renewed, noted = self._renewed(store, news), first or any(e.kind in ("command", "note") for e in news)
        if renewed:
            self._summaries = tuple(self._by_id[number] for number in sorted(self._by_id))
            known = Baselines.measured(self.settings, store.baselines())
            self._board = None if known is None else leaderboard.board(known, self._summaries)
        if self._board and (renewed or noted):
            self._board = leaderboard.claimed(self._board, self.settings, store)
        if noted:
            self._notes = steering.notes(store)
        found = status.read(self.lab, self.settings, store, known=(self._summaries, self._board))
        return Snapshot(found, self._board, self._summaries, self._events, self._notes)

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
