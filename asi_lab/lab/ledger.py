"""What a search has spent, entry by entry, and what was said for it: a part of the store."""

from __future__ import annotations

from typing import Any

import msgspec

from asi_lab.lab.codec import anything, key, pack, unpack
from asi_lab.lab.database import Database
from asi_lab.lab.spending import Cost, Spent, total

TABLES = ("ledger", "exchanges")

_spent = msgspec.msgpack.Decoder(Spent)
_SUM = b"spent"


class Ledger:
    """Entries under keys that begin with the candidate's id, calls to language models, and the sum of all.

    Every method raises `StoreError` as the store does.
    """

    def __init__(self, database: Database) -> None:
        self._db = database

    def add(self, name: str, entry: Cost) -> bool:
        """Record an expense under its own key, and add it to the sum. False when the key was recorded before:
        a replayed call is not counted twice."""
        return self._db.write(lambda txn: self._add(txn, name, entry))

    def add_call(self, candidate: int, name: str, exchange: dict[str, Any], entry: Cost) -> None:
        """Record a call to a language model and what it cost, in one transaction."""
        packed = pack(exchange)

        def work(txn: Any) -> None:
            txn.put(key(candidate) + name.encode(), packed, overwrite=False, db=self._db.table("exchanges"))
            self._add(txn, f"{candidate}/{name}", entry)

        self._db.write(work)

    def call(self, candidate: int, name: str) -> dict[str, Any] | None:
        """Return a recorded call by the candidate it was made for and its key, None when there is none."""
        where = key(candidate) + name.encode()
        raw = self._db.read(lambda txn: txn.get(where, db=self._db.table("exchanges")))
        return None if raw is None else unpack(anything, raw, f"a call for candidate {candidate}")

    def calls(self, candidate: int) -> list[dict[str, Any]]:
        """Return the recorded calls of a candidate, in the order in which they were made."""
        rows = self._rows("exchanges", key(candidate))
        found = [unpack(anything, raw, f"a call for candidate {candidate}") for _, raw in rows]
        return sorted(found, key=lambda exchange: float(exchange["started"]))

    def entries(self, prefix: str = "") -> dict[str, Cost]:
        """Return the entries by key, all or those whose key begins so."""
        rows = self._rows("ledger", prefix.encode())
        return {name.decode(): unpack(anything, raw, f"ledger {name!r}") for name, raw in rows}

    def spent(self) -> Spent:
        """Return the sum of all entries."""
        return self._db.read(self._sum)

    def spent_on(self, candidate: int) -> Spent:
        """Return the sum of a candidate's entries."""
        return total(self.entries(f"{candidate}/").values())

    def _add(self, txn: Any, name: str, entry: Cost) -> bool:
        new = bool(txn.put(name.encode(), pack(entry), overwrite=False, db=self._db.table("ledger")))
        if new:
            txn.put(_SUM, pack(self._sum(txn).plus(entry)), db=self._db.table("meta"))
        return new

    def _sum(self, txn: Any) -> Spent:
        raw = txn.get(_SUM, db=self._db.table("meta"))
        return Spent() if raw is None else unpack(_spent, raw, "the sum of the ledger")

    def _rows(self, table: str, prefix: bytes) -> list[tuple[bytes, bytes]]:
        return self._db.read(lambda txn: list(self._db.rows(txn, table, prefix=prefix)))
