"""What the kernel's control groups allow this process. Containers, batch systems and services are bounded by
them, which neither the number of processors nor the memory of the machine shows.

    version 2    cpu.max                                memory.max               memory.events
    version 1    cpu.cfs_quota_us, cpu.cfs_period_us    memory.limit_in_bytes    memory.oom_control

The limits of all groups above hold too. In a container they cannot be seen, but neither are they needed: what
is mounted there is the container's own group, whatever path the kernel names.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import msgspec

NO_LIMIT = 2**60
"""Bytes from which on a limit is none: version 1 writes a huge number where nobody set one."""


class Groups(msgspec.Struct, frozen=True):
    """The groups of one process as folders, the innermost first: those that bound processors, and those that
    bound memory."""

    cpu: tuple[Path, ...] = ()
    memory: tuple[Path, ...] = ()

    def cores(self) -> float:
        """Processors that may be used on average over time, a fraction perhaps; infinite without a limit."""
        return min(map(_quota, self.cpu), default=math.inf)

    def memory_bytes(self) -> float:
        """Bytes of memory that all processes of a group may hold together; infinite without a limit."""
        return min(map(_memory, self.memory), default=math.inf)

    def kills(self) -> int:
        """How many processes of the innermost group the kernel has ended for want of memory; 0 where it does
        not count them."""
        if not self.memory:
            return 0
        innermost = self.memory[0]
        counted = _numbers(innermost / "memory.events") | _numbers(innermost / "memory.oom_control")
        return int(counted.get("oom_kill", 0))


def own(proc: Path = Path("/proc/self")) -> Groups:
    """The groups of this process; none where the kernel has none. A controller belongs to a hierarchy of
    version 1 or else to that of version 2, if there is one."""
    paths, mounts = _paths(proc), list(_mounts(proc))

    def groups(controller: str) -> tuple[Path, ...]:
        name = controller if controller in paths else ""
        tops = [(root, mount) for controllers, root, mount in mounts if name in controllers]
        return tuple(_upwards(paths[name], *tops[0])) if name in paths and tops else ()

    return Groups(groups("cpu"), groups("memory"))


def _paths(proc: Path) -> dict[str, str]:
    """The process's path in each hierarchy, by controller; that of version 2 by the empty name."""
    found: dict[str, str] = {}
    for line in _lines(proc / "cgroup"):
        _, controllers, path = line.split(":", 2)
        found |= dict.fromkeys(controllers.split(","), path)
    return found


def _mounts(proc: Path) -> Iterator[tuple[frozenset[str], str, Path]]:
    """The hierarchies that are mounted: controllers (of version 2 the empty name), which group the top of the
    mount is, and where."""
    for line in _lines(proc / "mountinfo"):
        place, _, kind = line.partition(" - ")
        _, _, _, root, mount, *_ = place.split()
        filesystem, _, options = kind.split(maxsplit=2)
        if filesystem == "cgroup":
            yield frozenset(options.split(",")), root, Path(mount)
        elif filesystem == "cgroup2":
            yield frozenset({""}), root, Path(mount)


def _upwards(path: str, root: str, mount: Path) -> Iterator[Path]:
    """The group's folder and those of the groups above it, as far as they are mounted."""
    below = path.removeprefix(root.rstrip("/")) if path.startswith(root) else ""
    folder = mount / below.strip("/")
    while folder != mount:
        if folder.is_dir():
            yield folder
        folder = folder.parent
    yield mount


def _quota(group: Path) -> float:
    quota, period = "max", "100000"
    for line in _lines(group / "cpu.max"):
        quota, _, period = line.partition(" ")
    for line in _lines(group / "cpu.cfs_quota_us"):
        quota, period = line, next(_lines(group / "cpu.cfs_period_us"), period)
    return math.inf if quota == "max" or int(quota) <= 0 else int(quota) / int(period or 100_000)


def _memory(group: Path) -> float:
    for name in ("memory.max", "memory.limit_in_bytes"):
        for line in _lines(group / name):
            return math.inf if line == "max" or int(line) >= NO_LIMIT else float(line)
    return math.inf


def _numbers(file: Path) -> dict[str, int]:
    return {name: int(value) for name, _, value in (line.partition(" ") for line in _lines(file))}


def _lines(file: Path) -> Iterator[str]:
    """A file's lines; none where it is not there or may not be read."""
    try:
        yield from file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
