"""Copies of an LMDB file whose file of readers may not be written, as in a lab of another user.

A reader that the writer does not know of must not walk the pages: the writer uses them again, and LMDB ends
a process that comes to a page of another kind. So the file is copied and the copy is read. The writer spares
the pages of a moment until the third change after it; a copy is whole if at most one came while it was made.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

import lmdb

from asi_lab.errors import StoreError

TRIES = 20
FRESH_SECONDS = 1.0
"""So long a copy is read, whatever is written meanwhile."""


class Copies:
    """One copy at a time, in a temporary folder. Raises lmdb.Error and OSError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._source = lmdb.open(str(path), readonly=True, create=False, lock=False, lib_version=0)
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._moment, self._made = -1, 0.0

    def newer(self) -> Path | None:
        """The folder of a new copy where the last one is out of date, else None. The last one is gone then.

        Raises:
            StoreError: changes come too fast.
        """
        if self._now() == self._moment or time.monotonic() - self._made < FRESH_SECONDS:
            return None
        for _ in range(TRIES):
            fresh = tempfile.TemporaryDirectory(prefix="asi-lab-store-")
            moment = self._now()
            shutil.copyfile(self._path / "data.mdb", Path(fresh.name, "data.mdb"))
            if self._now() <= moment + 1:
                self.forget()
                self._folder, self._moment, self._made = fresh, moment, time.monotonic()
                return Path(fresh.name)
            fresh.cleanup()
        raise StoreError(
            f"the store at {self._path} is written too often to be copied, and {self._path / 'lock.mdb'} may "
            "not be written here, without which nothing else can be read: try again, or ask for that leave"
        )

    def _now(self) -> int:
        """The number of the last change, read off the head of the file alone."""
        return int(self._source.info()["last_txnid"])

    def forget(self) -> None:
        """Remove the copy."""
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def close(self) -> None:
        """Remove the copy, and let the file go."""
        self.forget()
        self._source.close()
