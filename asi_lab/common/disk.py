"""Small files that survive a power cut, folders held by one process, what to say when the disk refuses."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Error numbers of a disk, quota or file size that is used up."""


def write(path: Path, content: bytes, mode: int = 0o666) -> None:
    """Write a file whole and durably: a reader, also one after a power cut, finds all of it or what was
    there before. Raises OSError; then nothing half-made is left. A link in the place of the file, or of the
    one that is half-made, is replaced, not followed. `mode` is who may do what with it, less the umask."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.unlink(missing_ok=True)
        with open(partial, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
    sync(path.parent)


def read_plain(path: Path, most: int = 1 << 24) -> str:
    """The text of a file that may be a stranger's, of at most `most` bytes. Raises UnicodeDecodeError, and
    OSError also where it is a link, which may lead anywhere, no plain file, or larger."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "not a plain file", str(path))
        if found.st_size > most:
            raise OSError(errno.EFBIG, f"larger than {most:,} bytes", str(path))
        return file.read(most).decode("utf-8-sig").replace("\r\n", "\n")


def sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(folder: Path, *, wait: bool = True, follow: bool = True) -> Iterator[int]:
    """Hold the lock of a folder, which ends with this process at the latest; gives its descriptor.

    Raises:
        OSError: another holds it (`BlockingIOError`, only without `wait`), or it is no folder; also where it
            is a link that is not to be followed.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | (0 if follow else os.O_NOFOLLOW))
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield descriptor
    finally:
        os.close(descriptor)


def explain(error: OSError, place: Path) -> str:
    """What failed, in `place` unless the error names a file, and what to do about it."""
    full = error.errno in FULL
    fix = "Free some space" if full else "Check the disk and the permissions"
    return f"{error.filename or place}: {error.strerror or error}. {fix}, then try again."
