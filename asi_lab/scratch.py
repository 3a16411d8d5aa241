"""Temporary folders that are held while in use, so that what killed processes left is told apart.

Whoever makes a folder holds a lock on it. The kernel ends the lock with its process, whatever the clock says
and whichever namespace the process lives in.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


@contextlib.contextmanager
def held(prefix: str) -> Iterator[Path]:
    """A new temporary folder, which `sweep` leaves alone until it is given up, and then is gone."""
    while True:
        with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as name:
            try:
                folder = os.open(name, _FOLDER)
            except FileNotFoundError:
                continue  # swept before it could be locked
            try:
                fcntl.flock(folder, fcntl.LOCK_EX)
                if os.fstat(folder).st_nlink:  # not swept meanwhile either
                    yield Path(name)
                    return
            finally:
                os.close(folder)


def sweep(prefix: str) -> None:
    """Remove the folders of this user that begin so and that nobody holds."""
    for path in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        # It may be a link, another user's, held, or already gone.
        with contextlib.suppress(OSError):
            folder = os.open(path, _FOLDER)
            try:
                if os.fstat(folder).st_uid == os.geteuid():
                    fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(path)
            finally:
                os.close(folder)
