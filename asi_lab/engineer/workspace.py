"""A trial's working directory, and how the engine handles what a hostile trial may leave there.

Names are never followed: a trial can leave links, devices, pipes, millions of files or endless depth.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import subprocess
import threading
import time
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

from asi_lab.protocol import PROBE_FILES

MOST_ENTRIES = 20_000
"""A working directory with more files than this counts as too full, however small they are."""


MOST_WALKS = 4
COARSE_NANOSECONDS = 20_000_000
"""The kernel's clock for files lags behind by a tick."""

CHUNK_BYTES = 2**22

MOST_PROBE_BYTES = 2**26
"""The largest file of a probe's weights. A probe is a model of about a megabyte, with several files, which
may be holes in the trial, and are none in the copies."""

COMPILED = ("inductor", "triton")
"""What torch.compile and Triton keep in a trial's cache."""

_compiled_lock = threading.Lock()
"""Held while what trusted trials compiled is copied: several trials begin and end at the same time."""


class Tampered(Exception):
    """What a trial left is not what it should be."""


class Workspace:
    """The working directory of a trial or a server, and what is put into it and taken out."""

    def __init__(self, directory: Path, most_bytes: int = 2**30) -> None:
        """`most_bytes` bounds a file that is taken out of it."""
        self.path, self._most_bytes = directory, most_bytes
        for name in ("tmp", "cache"):
            (directory / name).mkdir(parents=True)

    def put(self, source: Path, name: str) -> None:
        """Copy a file of ours into it."""
        shutil.copyfile(source, self.path / name)
        (self.path / name).chmod(0o644)

    def take(self, name: str, destination: Path, pulse: Callable[[], object] = lambda: None) -> None:
        """Copy a plain file out of it, over `destination`, and delete it; `pulse` is called after every
        chunk. Whoever still holds the file open can no longer change what was copied.

        Raises:
            Tampered: there is no file of that name, or it is a link, has other names, is no file at all or
                larger than a trial may write.
        """
        incoming = destination.with_name(f".incoming-{destination.name}")
        try:
            descriptor = os.open(self.path / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise Tampered(f"left no {name}: {error.strerror}") from None
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
                raise Tampered(f"left something else than a plain file as {name}")
            most = min(self._most_bytes, MOST_PROBE_BYTES) if fnmatch(name, PROBE_FILES) else self._most_bytes
            if found.st_size > most:
                raise Tampered(f"left {found.st_size:,} bytes as {name}, limit {most:,}")
            _copy(descriptor, incoming, found.st_size, pulse)
        except BaseException:
            incoming.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
        incoming.replace(destination)
        with contextlib.suppress(OSError):
            (self.path / name).unlink()

    def warm(self, compiled: Path) -> None:
        """Copy what trusted trials compiled into the caches, for the trial to use and to change."""
        cache = self.path / "cache"
        with _compiled_lock:
            if not compiled.is_dir():
                return
            try:
                shutil.copytree(compiled, cache, symlinks=True, dirs_exist_ok=True)
            except OSError:  # a full disk, most likely: it compiles for itself
                for name in COMPILED:
                    remove_tree(cache / name)
                return
        if os.geteuid() == 0:
            owner = cache.stat()
            for folder, names, files in os.walk(cache):
                for name in (*names, *files):
                    os.lchown(os.path.join(folder, name), owner.st_uid, owner.st_gid)  # noqa: PTH118

    def keep_compiled(self, compiled: Path) -> None:
        """Add what this trial compiled to what later trials start from: for trusted code alone."""
        found = [self.path / "cache" / name for name in COMPILED if (self.path / "cache" / name).is_dir()]
        if not found:
            return
        fresh = compiled.with_name(f".incoming-{compiled.name}")
        with _compiled_lock:
            try:
                remove_tree(fresh)
                if compiled.is_dir():
                    shutil.copytree(compiled, fresh, symlinks=True)
                for folder in found:
                    shutil.copytree(folder, fresh / folder.name, symlinks=True, dirs_exist_ok=True)
                remove_tree(compiled)
                fresh.rename(compiled)
            except OSError:  # a full disk, most likely: later trials compile again
                remove_tree(fresh)

    def used_bytes(self) -> float:
        """Bytes on disk of all that lies in it; infinite where that cannot be told in reasonable time.

        A trial can move a folder from where nobody has looked yet to where somebody has. So where anything
        changed its place meanwhile, we look again, and what was seen once counts.
        """
        seen: dict[int, int] = {}
        try:
            for _ in range(MOST_WALKS):
                if self._walk(seen):
                    break
        except OSError:  # a path too long, a directory closed to us, too many of them
            return float("inf")
        return sum(seen.values())

    def _walk(self, seen: dict[int, int]) -> bool:
        """Add the bytes of all entries by their inodes; returns whether all stayed in their places."""
        entries, waiting, looked_at = 0, [str(self.path)], set()
        begun = time.time_ns() - COARSE_NANOSECONDS
        try:
            while waiting:
                folder = waiting.pop()
                looked_at.add(folder)
                with os.scandir(folder) as found:
                    for entry in found:
                        entries += 1
                        if entries > MOST_ENTRIES:
                            raise OSError(errno.EFBIG, "too many entries")
                        status = entry.stat(follow_symlinks=False)
                        seen[status.st_ino] = status.st_blocks * 512
                        if stat.S_ISDIR(status.st_mode):
                            waiting.append(entry.path)
            return all(os.lstat(folder).st_ctime_ns < begun for folder in looked_at)
        except FileNotFoundError:
            return False


def _copy(source: int, destination: Path, size: int, pulse: Callable[[], object]) -> None:
    """Copy up to `size` bytes: a file can grow or shrink meanwhile."""
    with destination.open("wb") as file:
        while size > 0 and (chunk := os.read(source, min(size, CHUNK_BYTES))):
            file.write(chunk)
            size -= len(chunk)
            pulse()


def remove_tree(path: Path) -> None:
    """Delete a file or directory of any depth, closed directories included. Links are not followed."""
    remove = ("rm", "-rf", "--", str(path))
    reopen = ("find", str(path), "-type", "d", "!", "-perm", "-700", "-exec", "chmod", "u+rwx", "{}", ";")
    for command in (remove, reopen, remove):
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        if not os.path.lexists(path):
            return
