"""One LMDB environment with a map that grows by itself and errors that say what to do.

All transactions of a process go through one lock: LMDB allows resizing the map only while the
process has none open. Work is passed as a function, since a transaction is run again after growth.
"""

from __future__ import annotations

import errno
import mmap
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import lmdb

from asi_lab.common import disk
from asi_lab.errors import StoreError
from asi_lab.lab.copies import Copies

T = TypeVar("T")
INITIAL_MAP = 1 << 30
_LARGEST_MAP = 1 << 44
_HEAD_BYTES = 2 * mmap.PAGESIZE
"""LMDB begins a file with two pages that say what is in it; a shorter one has never held anything."""
_LOCK_BYTES = 8192
"""Size of LMDB's file of readers."""
_READER_CHECK = 1000
"""Every this many changes the slots of readers that died are freed: the pages they saw can be used again."""
_RESTORE = "Restore the lab from a copy, or move it away and start anew"


def _can_list_readers(path: Path) -> bool:
    """Whether readers can tell the writer of themselves."""
    readers = path / "lock.mdb"
    return os.access(readers if readers.exists() else path, os.W_OK)


class Database:
    """A set of named LMDB tables. Every commit is on disk when the call returns.

    Raises `StoreError` from every method when LMDB refuses.
    """

    def __init__(
        self, path: Path, tables: Sequence[str], *, readonly: bool, create: bool = False, map_size: int
    ) -> None:
        self.path = path
        self.readonly = readonly
        self._file, self._names = path / "data.mdb", tuple(tables)
        self._env: Any = None
        self._copies: Copies | None = None
        self._lock = threading.RLock()
        self._changes = 0
        is_new = self._size() < _HEAD_BYTES
        if is_new and not create:
            raise StoreError(f"no store at {path}: expected data.mdb there; start a search in this lab first")
        try:
            if create:
                path.mkdir(parents=True, exist_ok=True)
            if is_new:
                self._file.unlink(missing_ok=True)  # begun on a full disk, say: LMDB does not go on with it
            self._allocate_lock_file()
            if readonly and not _can_list_readers(path):
                self._copies = Copies(path)
                self._open_copy(self._copies)
            else:
                self._env = self._open(path, map_size, readonly=readonly, create=create)
        except (lmdb.Error, OSError) as error:
            raise self._explain(error) from error
        try:
            self._page = self._env.stat()["psize"]
            self._check_length()
            self._env.reader_check()
            self._tables = self._open_tables(tables)
        except BaseException:
            self.close()
            raise

    def _open(self, path: Path, map_size: int, *, readonly: bool, create: bool, lock: bool = True) -> Any:
        return lmdb.open(
            str(path),
            map_size=map_size,
            max_dbs=len(self._names),
            readonly=readonly,
            create=create,
            lock=lock,
            sync=True,
            writemap=False,
            lib_version=0,  # the 0.9 file format; two are bundled
        )

    def _open_copy(self, copies: Copies) -> bool:
        """Read from a new copy, where there is one; says whether there is."""
        folder = copies.newer()
        if folder is None:
            return False
        if self._env is not None:
            self._env.close()
        self._file = folder / "data.mdb"
        self._env = self._open(folder, INITIAL_MAP, readonly=True, create=False, lock=False)
        return True

    def _size(self) -> int:
        """Bytes of the data file, 0 when there is none."""
        try:
            return self._file.stat().st_size
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise StoreError(disk.explain(error, self._file)) from None

    def _allocate_lock_file(self) -> None:
        """Take the space of LMDB's file of readers. LMDB writes it through a memory map, and a map without
        space behind it ends the process."""
        try:
            descriptor = os.open(self.path / "lock.mdb", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
                return  # LMDB does without it on a disk that nobody can write, or says what it may not do
            raise
        try:
            os.posix_fallocate(descriptor, 0, _LOCK_BYTES)
        finally:
            os.close(descriptor)

    def _promised(self) -> int:
        """Bytes that the data file must have: up to the last page that was ever used."""
        return int((self._env.info()["last_pgno"] + 1) * self._page)

    def _check_length(self) -> None:
        """Refuse a file that was cut off: reading a page behind its end would end the process."""
        promised = self._promised()
        if (size := self._size()) < promised:
            raise StoreError(
                f"{self._file} was cut off: expected {promised:,} bytes, found {size:,}. {_RESTORE}"
            )

    def _keep_in_order(self) -> None:
        """After a change: give the file the length it promises, since LMDB does not write a page at its
        end that was used and freed in one transaction; and free what dead readers held now and then."""
        if self._size() < (promised := self._promised()):
            os.truncate(self._file, promised)
        self._changes += 1
        if self._changes % _READER_CHECK == 0:
            self._env.reader_check()

    def _open_tables(self, names: Sequence[str]) -> dict[str, Any]:
        """The handles of all tables, which are made in one transaction: a store has all of them or none."""
        try:
            if self._env.stat()["entries"]:
                return {name: self._env.open_db(name.encode(), create=False) for name in names}
            if self.readonly:
                raise StoreError(f"the store at {self.path} is just being created: try again")
            with self._env.begin(write=True) as txn:
                return {name: self._env.open_db(name.encode(), txn=txn, create=True) for name in names}
        except lmdb.NotFoundError as error:
            raise StoreError(f"{self._file} has lost a table ({error}). {_RESTORE}") from error
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
                    if self._copies is not None and self._open_copy(self._copies):
                        self._tables = self._open_tables(self._names)
                    with self._env.begin(write=write) as txn:
                        result = work(txn)
                    if write:
                        self._keep_in_order()
                    return result
                except lmdb.MapFullError as error:
                    self._grow(error)
                except lmdb.MapResizedError:
                    self._env.set_mapsize(0)  # another process grew it: take over its size
                except lmdb.ReadersFullError as error:
                    if checked:
                        raise self._explain(error) from error
                    self._env.reader_check()  # frees the slots of readers that died
                    checked = True
                except (lmdb.Error, OSError) as error:
                    raise self._explain(error) from error

    def _grow(self, cause: lmdb.Error) -> None:
        size = 2 * self._env.info()["map_size"]
        if size > _LARGEST_MAP:
            raise StoreError(
                f"{self._file} is full: it has reached the largest size of {_LARGEST_MAP:,} bytes. Go on in "
                "another lab"
            ) from cause
        try:
            self._env.set_mapsize(size)
        except lmdb.Error as error:
            raise self._explain(error) from error

    def _explain(self, error: Exception) -> StoreError:
        code = getattr(error, "errno", None) or getattr(error, "code", 0)
        if isinstance(error, lmdb.DiskError) or code in {*disk.FULL, errno.EIO}:
            return StoreError(
                f"disk full (or failing) while writing {self.path}: {error}. Nothing was damaged, the last "
                "change was not made. Free some space (old trials/ are the largest), then start again"
            )
        if isinstance(error, lmdb.ReadersFullError):
            return StoreError(f"too many viewers read {self.path}: close some status, top or TUI windows")
        if "already open in this process" in str(error):
            return StoreError(f"the store at {self.path} is already open in this process; use that one")
        if isinstance(error, lmdb.InvalidError | lmdb.VersionMismatchError | lmdb.CorruptedError):
            return StoreError(f"{self._file} is not a readable LMDB 0.9 file: {error}. {_RESTORE}")
        return StoreError(f"the store at {self.path} cannot be used: {error}")

    def close(self) -> None:
        """Close the environment. Closing twice is harmless."""
        with self._lock:
            self._env.close()
            if self._copies is not None:
                self._copies.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
