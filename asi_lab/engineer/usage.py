"""What a process uses together with all that it has started: memory, threads, processor time, and files that
no folder names any more."""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil

NAMELESS_MEMORY = ("/dev/zero ", "/memfd:", "/SYSV", "/dev/shm/")
"""Beginnings of the names by which the kernel shows mapped memory as if it were a deleted file."""


class ProcessUsage(msgspec.Struct, frozen=True):
    """Of a whole tree of processes.

    `resident_bytes` hold what is mapped, and nameless files that lie in memory. `nameless_bytes` are those of
    files on the disk that were deleted but are still open or mapped. `cpu_seconds` count ended processes too.
    """

    resident_bytes: int = 0
    tasks: int = 0
    cpu_seconds: float = 0.0
    nameless_bytes: int = 0


class Tree:
    """A process and all below it, looked at again and again."""

    def __init__(self, pid: int, disk: Path) -> None:
        """`disk` lies where the processes write to: files of other devices count as memory."""
        self._root, self._device = psutil.Process(pid), disk.stat().st_dev
        self._alive: dict[psutil.Process, float] = {}
        self._ended_seconds = 0.0
        self._usage = ProcessUsage()

    def last(self) -> ProcessUsage:
        """What the last look found."""
        return self._usage

    def look(self) -> ProcessUsage:
        """What all of them use now.

        Processor time never falls. A parent that waits for its children hands their time on; of one that does
        not, the time that was seen is kept.
        """
        resident = tasks = 0
        seconds, own = 0.0, {}
        nameless: dict[tuple[int, int], int] = {}
        for process in self._processes():
            with contextlib.suppress(psutil.Error), process.oneshot():
                times = process.cpu_times()
                own[process] = times.user + times.system
                seconds += own[process] + times.children_user + times.children_system
                resident += process.memory_info().rss
                tasks += process.num_threads()
                for inode, size in _nameless(process.pid):
                    nameless[inode] = max(size, nameless.get(inode, 0))
        self._ended_seconds += sum(last for process, last in self._alive.items() if process not in own)
        self._alive = own
        on_disk = sum(size for (device, _), size in nameless.items() if device in (0, self._device))
        self._usage = ProcessUsage(
            resident_bytes=resident + sum(nameless.values()) - on_disk,
            tasks=tasks,
            cpu_seconds=max(self._usage.cpu_seconds, seconds, self._ended_seconds + sum(own.values())),
            nameless_bytes=on_disk,
        )
        return self._usage

    def _processes(self) -> list[psutil.Process]:
        with contextlib.suppress(psutil.Error):
            if self._root.is_running():
                return [self._root, *self._root.children(recursive=True)]
        return []


def _nameless(pid: int) -> Iterator[tuple[tuple[int, int], int]]:
    """Device, number and bytes of the deleted files that a process holds open or has mapped, device 0 where
    only its mapping tells. A file may come more than once; what cannot be looked at is passed over."""
    proc, open_files = Path("/proc", str(pid)), set()
    with contextlib.suppress(OSError):
        for link in (proc / "fd").iterdir():
            with contextlib.suppress(OSError):
                found = link.stat()
                if found.st_nlink == 0 and stat.S_ISREG(found.st_mode):
                    open_files.add(found.st_ino)
                    yield (found.st_dev, found.st_ino), found.st_blocks * 512
    with contextlib.suppress(OSError), (proc / "maps").open(encoding="utf-8", errors="replace") as maps:
        for line in maps:
            if not line.endswith(" (deleted)\n"):
                continue
            addresses, _, _, _, inode, path = line.split(maxsplit=5)
            if int(inode) not in open_files and not path.startswith(NAMELESS_MEMORY):
                start, end = (int(address, 16) for address in addresses.split("-"))
                yield (0, int(inode)), end - start
