"""What the kernel's control groups allow this process. Containers, batch systems and services are bounded by
them, which neither the number of processors nor the memory of the machine shows.

    version 2    cpu.max                                memory.max               memory.events
    version 1    cpu.cfs_quota_us, cpu.cfs_period_us    memory.limit_in_bytes    memory.oom_control

The limits of all groups above hold too. In a container they cannot be seen, but neither are they needed: what
is mounted there is the container's own group, whatever path the kernel names.
"""

from __future__ import annotations

import math
import re
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
        count = counted.get("oom_kill", 0.0)
        return int(count) if math.isfinite(count) else 0


def own(proc: Path = Path("/proc/self")) -> Groups:
    """The groups of this process; none where the kernel has none. A controller belongs to a hierarchy of
    version 1 or else to that of version 2, if there is one."""
    paths, mounts = _paths(proc), list(_mounts(proc))

    def groups(controller: str) -> tuple[Path, ...]:
        name = controller if controller in paths else ""
        tops = [(root, mount) for controllers, root, mount in mounts if name in controllers]
        if name not in paths or not tops:
            return ()
        path = paths[name]
        # Several mounts may show parts of one hierarchy: the part that holds us counts, the smallest of them.
        root, mount = max(tops, key=lambda top: len(top[0]) if _is_below(path, top[0]) else 0)
        return tuple(_upwards(path, root, mount))

    return Groups(groups("cpu"), groups("memory"))


def _paths(proc: Path) -> dict[str, str]:
    """The process's path in each hierarchy, by controller; that of version 2 by the empty name."""
    found: dict[str, str] = {}
    for line in _lines(proc / "cgroup"):
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if path:
            found |= dict.fromkeys(controllers.split(","), path)
    return found


def _mounts(proc: Path) -> Iterator[tuple[frozenset[str], str, Path]]:
    """The hierarchies that are mounted: controllers (of version 2 the empty name), which group the top of the
    mount is, and where."""
    for line in _lines(proc / "mountinfo"):
        place, _, kind = line.partition(" - ")
        _, _, _, root, mount, *_ = [*place.split(" "), *[""] * 5]
        filesystem, *_, options = kind.split(" ")
        if filesystem in ("cgroup", "cgroup2"):
            controllers = options.split(",") if filesystem == "cgroup" else [""]
            yield frozenset(controllers), _plain(root), Path(_plain(mount))


def _plain(name: str) -> str:
    """A path in which the kernel wrote blanks and the like as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), name)


def _is_below(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip("/") + "/")


def _upwards(path: str, root: str, mount: Path) -> Iterator[Path]:
    """The group's folder and those of the groups above it, as far as they are mounted."""
    below = path.removeprefix(root.rstrip("/")) if _is_below(path, root) else ""
    folder = mount / below.strip("/")
    while folder != mount:
        if folder.is_dir():
            yield folder
        folder = folder.parent
    yield mount


def _quota(group: Path) -> float:
    quota, _, period = _first(group / "cpu.max").partition(" ")
    if not quota:
        quota, period = _first(group / "cpu.cfs_quota_us"), _first(group / "cpu.cfs_period_us")
    found, each = _number(quota), _number(period)
    return found / each if 0 < found < math.inf and 0 < each < math.inf else math.inf


def _memory(group: Path) -> float:
    found = _number(_first(group / "memory.max") or _first(group / "memory.limit_in_bytes"))
    return found if found < NO_LIMIT else math.inf


def _numbers(file: Path) -> dict[str, float]:
    return {name: _number(value) for name, _, value in (line.partition(" ") for line in _lines(file))}


def _number(text: str) -> float:
    """A number of the kernel's; infinite for `max`, and for what is none."""
    return float(text) if text.lstrip("-").isdecimal() else math.inf


def _first(file: Path) -> str:
    return next(_lines(file), "").strip()


def _lines(file: Path) -> Iterator[str]:
    """A file's lines; none where it is not there or may not be read."""
    try:
        yield from file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
