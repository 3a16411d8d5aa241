"""Temporary folders that are held while in use, so that what killed processes left is told apart.

Whoever makes a folder holds a lock on it. The kernel ends the lock with its process, whatever the clock says
and whichever namespace the process lives in.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from asi_lab.common import disk

PLACE = Path("the folder for temporary files")
"""What messages call it: where there is none, it has no path."""


@contextmanager
def held(prefix: str) -> Iterator[Path]:
    """A new temporary folder, which `sweep` leaves alone until it is given up, and then is gone."""
    while True:
        with (
            tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as name,
            ExitStack() as lock,
        ):
            try:
                folder = lock.enter_context(disk.locked(Path(name), follow=False))
            except FileNotFoundError:
                continue  # swept before it could be locked
            if os.fstat(folder).st_nlink:  # not swept meanwhile either
                yield Path(name)
                return


def sweep(prefix: str) -> None:
    """Remove the folders of this user that begin so and that nobody holds."""
    for path in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        # It may be a link, another user's, held, or already gone.
        with suppress(OSError):
            if path.lstat().st_uid == os.geteuid():
                with disk.locked(path, wait=False, follow=False):
                    shutil.rmtree(path)
