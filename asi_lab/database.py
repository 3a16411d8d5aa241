"""One LMDB environment with a map that grows by itself and errors that say what to do.

All transactions of a process go through one lock: LMDB allows resizing the map only while the
process has none open. Work is passed as a function, since a transaction is run again after growth.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import lmdb

from asi_lab.errors import StoreError

T = TypeVar("T")
INITIAL_MAP = 1 << 30
_LARGEST_MAP = 1 << 44
_SPACE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


class Database:
    """A set of named LMDB tables. Every commit is on disk when the call returns.

    Raises `StoreError` from every method when LMDB refuses.
    """

    def __init__(
        self, path: Path, tables: Sequence[str], *, readonly: bool, create: bool = False, map_size: int
    ) -> None:
        self.path = path
        self.readonly = readonly
        self._lock = threading.RLock()
        if not create and not (path / "data.mdb").exists():
            raise StoreError(f"no store at {path}: expected data.mdb there; start a search in this lab first")
        try:
            if create:
                path.mkdir(parents=True, exist_ok=True)
            self._env = lmdb.open(
                str(path),
                map_size=map_size,
                max_dbs=len(tables),
                readonly=readonly,
                create=create,
                sync=True,
                writemap=False,
                lib_version=0,  # the 0.9 file format; two are bundled
            )
        except (lmdb.Error, OSError) as error:
            raise self._explain(error) from error
        try:
            self._env.reader_check()
            self._tables = {name: self._open_table(name) for name in tables}
        except BaseException:
            self._env.close()
            raise

    def _open_table(self, name: str) -> Any:
        try:
            return self._env.open_db(name.encode(), create=not self.readonly)
        except lmdb.NotFoundError as error:
            raise StoreError(f"the store at {self.path} is just being created: try again") from error
        except lmdb.Error as error:
            raise self._explain(error) from error

    def read(self, work: Callable[[Any], T]) -> T:
        """Run `work(transaction)` on a consistent snapshot. Keep it short: copy out, decode later."""
        return self._run(work, write=False)

    def write(self, work: Callable[[Any], T]) -> T:
        """Run `work(transaction)` and commit, durably and all or nothing. It may be run again."""
        if self.readonly:
            raise StoreError(f"the store at {self.path} was opened for reading; only the engine writes")
        return self._run(work, write=True)

    def table(self, name: str) -> Any:
        """Return the handle of a table."""
        return self._tables[name]

    def rows(
        self, txn: Any, name: str, *, start: bytes = b"", prefix: bytes = b"", limit: int | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        """Yield (key, value) in key order from `start`, within `prefix`, at most `limit` of them."""
        with txn.cursor(db=self._tables[name]) as cursor:
            if not cursor.set_range(max(start, prefix)):
                return
            for count, (key, value) in enumerate(cursor):
                if not key.startswith(prefix) or count == limit:
                    return
                yield key, value

    def last(self, txn: Any, name: str) -> tuple[bytes, bytes] | None:
        """Return the last (key, value) of a table, None when it is empty."""
        with txn.cursor(db=self._tables[name]) as cursor:
            return cursor.item() if cursor.last() else None

    def _run(self, work: Callable[[Any], T], *, write: bool) -> T:
        checked = False
        with self._lock:
            while True:
                try:
                    with self._env.begin(write=write) as txn:
                        return work(txn)
                except lmdb.MapFullError as error:
                    self._grow(error)
                except lmdb.MapResizedError:
                    self._env.set_mapsize(0)  # another process grew it: take over its size
                except lmdb.ReadersFullError as error:
                    if checked:
                        raise self._explain(error) from error
                    self._env.reader_check()  # frees the slots of readers that died
                    checked = True
                except lmdb.Error as error:
                    raise self._explain(error) from error

    def _grow(self, cause: lmdb.Error) -> None:
        size = 2 * self._env.info()["map_size"]
        if size > _LARGEST_MAP:
            raise self._explain(cause) from cause
        try:
            self._env.set_mapsize(size)
        except lmdb.Error as error:
            raise self._explain(error) from error

    def _explain(self, error: Exception) -> StoreError:
        code = getattr(error, "errno", None) or getattr(error, "code", 0)
        if isinstance(error, lmdb.DiskError) or code in _SPACE_ERRORS:
            return StoreError(
                f"disk full (or failing) while writing {self.path}: {error}. Nothing was damaged, the last "
                "change was not made. Free some space (old trials/ are the largest), then start again"
            )
        if isinstance(error, lmdb.ReadersFullError):
            return StoreError(f"too many viewers read {self.path}: close some status, top or TUI windows")
        if "already open in this process" in str(error):
            return StoreError(f"the store at {self.path} is already open in this process; use that one")
        if isinstance(error, lmdb.InvalidError | lmdb.VersionMismatchError | lmdb.CorruptedError):
            return StoreError(
                f"{self.path}/data.mdb is not a readable LMDB 0.9 file: {error}. Restore the lab from a "
                "copy, or move the store away to start anew"
            )
        return StoreError(f"the store at {self.path} cannot be used: {error}")

    def close(self) -> None:
        """Close the environment. Closing twice is harmless."""
        with self._lock:
            self._env.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
