"""The lab's truth while it runs: candidates, events, curves and engine state in one LMDB environment.

    who writes        the engine's process alone, or a command that holds the lab's lock while none runs
    from where        any of its threads: LMDB lets one write at a time; never across a fork
    what is durable   all of a change, with its events, once the call returns: one transaction, synced to disk
    what a reader     one moment in each call, whole, and never a change in part; between two calls the engine
      sees            may have gone on. No method keeps a transaction open between calls

So a killed engine finds either all of a step or nothing of it. Every value carries a checksum: what a disk
has lost or changed is an error, never another result.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from asi_lab.errors import StoreError
from asi_lab.events import EVENT_KINDS, Event, EventKind, NewEvent
from asi_lab.lab.codec import DAMAGED, anything, pack, seal, unpack, unseal
from asi_lab.lab.codec import key as number_key
from asi_lab.lab.database import INITIAL_MAP, Database
from asi_lab.lab.ledger import TABLES as LEDGER_TABLES
from asi_lab.lab.ledger import Ledger
from asi_lab.lab.soundness import as_far_as_sound, back_to, faults_of
from asi_lab.lab.summary import Summary, summarise
from asi_lab.records import BaselineRun, Candidate, CandidateState

FORMAT = 3
SERIES_COLUMNS = ("step", "tokens", "loss", "learning_rate", "tokens_per_second", "memory_mb", "seconds")
"""Columns of a loss curve; `seconds` count from the start of training."""

_TABLES = (
    "candidates",
    "summaries",
    "baselines",
    "series",
    "events",
    "vectors",
    *LEDGER_TABLES,
    "commands",
    "meta",
)
_FORMAT_KEY = b"\0format"
_BATCH = 64
_CHUNK_ROWS = 256


_candidates = msgspec.msgpack.Decoder(Candidate)
_summaries = msgspec.msgpack.Decoder(Summary)
_baselines = msgspec.msgpack.Decoder(BaselineRun)
_events = msgspec.msgpack.Decoder(Event)


class Store:
    """One lab's store. Usable from several threads, not across a fork. Close it, or use `with`.

    Every method raises `StoreError` when LMDB refuses (full disk, damaged file, foreign format).
    """

    def __init__(self, database: Database) -> None:
        self._db = database
        self.ledger = Ledger(database)

    @classmethod
    def open(cls, path: Path, *, create: bool = True, map_size: int = INITIAL_MAP) -> Self:
        """Open for writing: the engine, or a repair that holds the lab's lock. `map_size` in bytes
        is where the sparse map starts; it doubles when full."""
        store = cls(Database(path, _TABLES, readonly=False, create=create, map_size=map_size))
        store._checked(create)
        return store

    @classmethod
    def open_readonly(cls, path: Path) -> Self:
        """Open for viewing while an engine may run; each call sees one consistent moment."""
        store = cls(Database(path, _TABLES, readonly=True, map_size=INITIAL_MAP))
        store._checked(create=False)
        return store

    def _checked(self, create: bool) -> None:
        try:
            found = self._db.read(lambda txn: txn.get(_FORMAT_KEY, db=self._db.table("meta")))
            if found is None and self.last_id() >= 0:
                raise StoreError(f"{self._db.path} does not say of which format it is: {DAMAGED}")
            if found is None and not create:
                raise StoreError(f"the store at {self._db.path} is just being created: try again")
            if found is None:
                found = str(FORMAT).encode()
                self._write("meta", _FORMAT_KEY, found)
            if found != str(FORMAT).encode():
                raise StoreError(
                    f"the store at {self._db.path} has format {found.decode(errors='replace')}, this asi-lab "
                    f"reads format {FORMAT}: use the asi-lab version that made the lab, or start a new lab"
                )
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the store. Closing twice is harmless."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Candidates

    def put(
        self, candidate: Candidate, *events: NewEvent, vector: NDArray[np.float32] | None = None
    ) -> list[Event]:
        """Record a candidate with its events, and its motivation's embedding `[D]` when given, in one
        transaction. Of a record that is not sound as much is kept as is, with a warning. Returns the events
        as numbered."""
        candidate, wrong = as_far_as_sound(candidate)
        if wrong:
            events = (*events, ("warning", f"its record {wrong}; {back_to(candidate)}", {}))
        key, record, summary = number_key(candidate.id), pack(candidate), pack(summarise(candidate))
        embedding = None if vector is None else seal(np.ascontiguousarray(vector, np.float32).tobytes())

        def work(txn: Any) -> list[Event]:
            txn.put(key, record, db=self._db.table("candidates"))
            txn.put(key, summary, db=self._db.table("summaries"))
            if embedding is not None:
                txn.put(key, embedding, db=self._db.table("vectors"))
            return self._number_events(txn, candidate.id, events)

        return self._db.write(work)

    def get(self, candidate: int) -> Candidate | None:
        """Return a candidate by id, as far as its record is sound; None when there is none."""
        raw = self._read("candidates", number_key(candidate))
        return None if raw is None else as_far_as_sound(self._candidate(candidate, raw))[0]

    def held(self, candidate: int) -> Candidate:
        """As `get`, for one that others name.

        Raises:
            StoreError: its record is lost.
        """
        found = self.get(candidate)
        if found is None:
            raise StoreError(f"the record of candidate {candidate}, which others name, is lost: {DAMAGED}")
        return found

    def candidates(self, start: int = 0) -> Iterator[Candidate]:
        """Yield all candidates from id `start` in order of id, as far as their records are sound, read in
        batches as they stand then."""
        return (as_far_as_sound(record)[0] for record in self.records(start))

    def records(self, start: int = 0) -> Iterator[Candidate]:
        """Yield all candidates as they were recorded, for those who look for faults."""
        while True:
            batch = self._rows("candidates", start=number_key(start), limit=_BATCH)
            for key, raw in batch:
                yield self._candidate(_number(key), raw)
            if len(batch) < _BATCH:
                return
            start = _number(batch[-1][0]) + 1

    def summaries(self) -> list[Summary]:
        """Return the summaries of all candidates in order of id."""
        return [unpack(_summaries, raw, f"summary {_number(k)}") for k, raw in self._rows("summaries")]

    def summary(self, candidate: int) -> Summary | None:
        """Return the summary of a candidate, None when there is none."""
        raw = self._read("summaries", number_key(candidate))
        return None if raw is None else unpack(_summaries, raw, f"summary {candidate}")

    def count(self) -> int:
        """Return the number of candidates."""
        return int(self._db.read(lambda txn: txn.stat(self._db.table("candidates"))["entries"]))

    def last_id(self) -> int:
        """Return the largest candidate id, -1 in an empty store."""
        last = self._db.read(lambda txn: self._db.last(txn, "candidates"))
        return -1 if last is None else _number(last[0])

    def unfinished(self) -> list[Candidate]:
        """Return the candidates that are on their way, in order of id."""
        found = (self.get(summary.id) for summary in self.summaries() if not summary.state.is_terminal)
        return [candidate for candidate in found if candidate is not None]

    def best_id(self) -> int | None:
        """Return the finished candidate of the highest merit, the first of equals; None before any."""
        done = [s for s in self.summaries() if s.state is CandidateState.DONE]
        scored = [(s.merit, -s.id) for s in done if s.merit is not None]
        return -max(scored)[1] if scored else None

    def vector(self, candidate: int) -> NDArray[np.float32] | None:
        """Return a candidate's embedding `[D]`, None when it has none."""
        raw = self._read("vectors", number_key(candidate))
        return None if raw is None else _floats(raw, f"the embedding of candidate {candidate}")

    def vectors(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return ids `[N]` and embeddings `[N, D]` of all candidates that have one."""
        rows = self._rows("vectors")
        ids = np.array([_number(key) for key, _ in rows], np.int64)
        vectors = [_floats(raw, f"the embedding of candidate {_number(key)}") for key, raw in rows]
        if len({len(vector) for vector in vectors}) > 1:
            raise StoreError(
                f"embeddings in {self._db.path} differ in length: put it right with `asi-lab fsck --repair`"
            )
        return ids, np.stack(vectors) if rows else np.empty((0, 0), np.float32)

    # Baselines and loss curves

    def put_baseline(self, run: BaselineRun, *events: NewEvent) -> list[Event]:
        """Record one run of a reference with its events, in the place of an earlier record of it."""
        rate = b"" if run.rate == 1.0 else struct.pack(">d", run.rate)
        key = run.architecture.encode() + b"\0" + number_key(run.seed_index) + rate
        return self._write("baselines", key, pack(run), *events)

    def baselines(self) -> list[BaselineRun]:
        """Return all sound baseline runs, and those that failed, by architecture and seed index."""
        return [run for run in self.reference_runs() if run.is_baseline]

    def reference_runs(self) -> list[BaselineRun]:
        """Return all runs of references, by architecture, seed index and learning rate: beside the baselines
        those at other learning rates or of tuning's seeds."""
        runs = [unpack(_baselines, raw, f"baseline {key!r}") for key, raw in self._rows("baselines")]
        return [run for run in runs if run.evidence.failure is not None or not faults_of(run.evidence)]

    def append_series(self, run: str, rows: NDArray[np.float32]) -> None:
        """Append points `[n, 7]` to a run's loss curve; columns are `SERIES_COLUMNS`.

        Raises ValueError on another shape.
        """
        points = np.ascontiguousarray(rows, np.float32)
        if points.ndim != 2 or points.shape[1] != len(SERIES_COLUMNS):
            raise ValueError(f"expected points of shape [n, {len(SERIES_COLUMNS)}], found {points.shape}")
        prefix, added = _run_prefix(run), points.tobytes()
        table, full = self._db.table("series"), _CHUNK_ROWS * points.itemsize * points.shape[1]

        def work(txn: Any) -> None:
            chunk, head = 0, b""
            with txn.cursor(db=table) as cursor:  # the last chunk of this run lies before its successor
                behind = cursor.set_range(prefix + b"\xff" * 8)
                if (cursor.prev() if behind else cursor.last()) and cursor.key().startswith(prefix):
                    chunk = _number(cursor.key()[len(prefix) :])
                    head = unseal(cursor.value(), f"the loss curve of {run}")
            if len(head) >= full:
                chunk, head = chunk + 1, b""
            txn.put(prefix + number_key(chunk), seal(head + added), db=table)

        if len(points):
            self._db.write(work)

    def series(self, run: str) -> NDArray[np.float32]:
        """Return a run's loss curve `[N, 7]`; empty for an unknown run."""
        rows, what = self._rows("series", prefix=_run_prefix(run)), f"the loss curve of {run}"
        points = np.frombuffer(b"".join(unseal(value, what) for _, value in rows), np.float32)
        return points.reshape(-1, len(SERIES_COLUMNS))

    def drop_series(self, run: str, after: int = 0) -> None:
        """Forget a run's loss curve after step `after`: a trial starts it anew, or goes on there."""
        points, prefix = self.series(run), _run_prefix(run)
        kept = points[points[:, 0] <= after] if after else points[:0]

        def work(txn: Any) -> None:
            table = self._db.table("series")
            for key in [key for key, _ in self._db.rows(txn, "series", prefix=prefix)]:
                txn.delete(key, db=table)
            for chunk, first in enumerate(range(0, len(kept), _CHUNK_ROWS)):
                rows = kept[first : first + _CHUNK_ROWS].tobytes()
                txn.put(prefix + number_key(chunk), seal(rows), db=table)

        self._db.write(work)

    def series_runs(self) -> list[str]:
        """Return the names of all runs that have a loss curve."""
        runs = self._db.read(lambda txn: {key[:-9] for key, _ in self._db.rows(txn, "series")})
        if b"" in runs:
            raise StoreError(f"a loss curve without a name: {DAMAGED}")
        return sorted(run.decode() for run in runs)

    # Events, commands and engine state

    def append_events(self, *events: NewEvent, candidate: int | None = None) -> list[Event]:
        """Record events that change nothing else. Returns them as numbered."""
        return self._db.write(lambda txn: self._number_events(txn, candidate, events))

    def events(self, after_seq: int = 0, limit: int = 1000) -> list[Event]:
        """Return at most `limit` events that follow `after_seq`, oldest first."""
        rows = self._rows("events", start=number_key(after_seq + 1), limit=limit)
        return [unpack(_events, raw, f"event {_number(key)}") for key, raw in rows]

    def last_events(self, count: int) -> list[Event]:
        """Return the last `count` events, oldest first."""
        last = self._db.read(lambda txn: self._db.last(txn, "events"))
        return [] if last is None else self.events(max(_number(last[0]) - count, 0), count)

    def record_command(self, command: str, payload: dict[str, Any], *events: NewEvent) -> bool:
        """Record an order by its id with the events that answer it. False, and no event, when the
        id was recorded before."""

        def work(txn: Any) -> bool:
            new = self._is_new(txn, command, payload)
            if new:
                self._number_events(txn, None, events)
            return new

        return self._db.write(work)

    def put_meta(self, key: str, value: Any, *events: NewEvent) -> list[Event]:
        """Keep a piece of engine state (anything msgpack can hold) under a key."""
        return self._write("meta", key.encode(), pack(value), *events)

    def get_meta(self, key: str, default: Any = None) -> Any:
        """Return the engine state under a key as plain values, `default` when there is none."""
        raw = self._read("meta", key.encode())
        return default if raw is None else unpack(anything, raw, f"meta {key!r}")

    def metas(self, prefix: str) -> dict[str, Any]:
        """Return the engine state under all keys that begin so."""
        rows = self._rows("meta", prefix=prefix.encode())
        return {key.decode(): unpack(anything, raw, f"meta {key!r}") for key, raw in rows}

    def change_meta(
        self,
        key: str,
        change: Callable[[Any], tuple[Any, str]],
        candidate: int | None = None,
        kind: EventKind = "note",
        also: tuple[str, Any] | None = None,
    ) -> None:
        """Replace a value by what `change` makes of it, in one transaction with the event that says so, and
        with another value and its key. None for the new value leaves the old one, no words make no event."""
        self._db.write(lambda txn: self._change(txn, key, change, candidate, (kind, {}), also))

    def obey(
        self,
        command: str,
        payload: dict[str, Any],
        key: str,
        change: Callable[[Any], tuple[Any, str]],
        candidate: int | None = None,
    ) -> bool:
        """Carry an order out that changes a value, and answer it, in the transaction that records its id.
        False, and no change, when the id was recorded before. The event's data say `refused` where the value
        stays as it was."""

        def work(txn: Any) -> bool:
            new = self._is_new(txn, command, payload)
            if new:
                self._change(txn, key, change, candidate, ("command", {"id": command}), None)
            return new

        return self._db.write(work)

    def drop_meta(self, key: str) -> None:
        """Forget a value; there need not be one."""
        self._db.write(lambda txn: txn.delete(key.encode(), db=self._db.table("meta")))

    # Shared steps

    @staticmethod
    def _candidate(number: int, raw: bytes) -> Candidate:
        return unpack(_candidates, raw, f"candidate {number}")

    def _read(self, table: str, key: bytes) -> bytes | None:
        raw: bytes | None = self._db.read(lambda txn: txn.get(key, db=self._db.table(table)))
        return raw

    def _rows(
        self, table: str, *, start: bytes = b"", prefix: bytes = b"", limit: int | None = None
    ) -> list[tuple[bytes, bytes]]:
        return self._db.read(
            lambda txn: list(self._db.rows(txn, table, start=start, prefix=prefix, limit=limit))
        )

    def _write(self, table: str, key: bytes, value: bytes, *events: NewEvent) -> list[Event]:
        def work(txn: Any) -> list[Event]:
            txn.put(key, value, db=self._db.table(table))
            return self._number_events(txn, None, events)

        return self._db.write(work)

    def _change(
        self,
        txn: Any,
        key: str,
        change: Callable[[Any], tuple[Any, str]],
        candidate: int | None,
        event: tuple[EventKind, dict[str, Any]],
        also: tuple[str, Any] | None,
    ) -> None:
        raw, table = txn.get(key.encode(), db=self._db.table("meta")), self._db.table("meta")
        value, words = change(None if raw is None else unpack(anything, raw, f"meta {key!r}"))
        kind, data = event
        if value is not None:
            txn.put(key.encode(), pack(value), db=table)
        elif kind == "command":
            data = data | {"refused": True}
        if also is not None:
            txn.put(also[0].encode(), pack(also[1]), db=table)
        if words:
            self._number_events(txn, candidate, ((kind, words, data),))

    def _is_new(self, txn: Any, command: str, payload: dict[str, Any]) -> bool:
        """Record an order's id; False where it was recorded before."""
        return bool(txn.put(command.encode(), pack(payload), overwrite=False, db=self._db.table("commands")))

    def _number_events(self, txn: Any, candidate: int | None, events: tuple[NewEvent, ...]) -> list[Event]:
        last = self._db.last(txn, "events") if events else None
        first = 1 + (_number(last[0]) if last else 0)
        now, written = time.time(), []
        for seq, (kind, message, data) in enumerate(events, start=first):
            if kind not in EVENT_KINDS:
                raise ValueError(f"unknown kind of event {kind!r}; expected one of {sorted(EVENT_KINDS)}")
            event = Event(seq, now, kind, candidate, message, data)
            txn.put(number_key(seq), pack(event), append=True, db=self._db.table("events"))
            written.append(event)
        return written


def _number(key: bytes) -> int:
    return int.from_bytes(key, "big")


def _run_prefix(run: str) -> bytes:
    if not run or "\0" in run or len(run.encode()) > 400:
        raise ValueError(f"expected a run name of 1 to 400 bytes without NUL, found {run[:80]!r}")
    return run.encode() + b"\0"


def _floats(raw: bytes, what: str) -> NDArray[np.float32]:
    return np.frombuffer(unseal(raw, what), np.float32)
