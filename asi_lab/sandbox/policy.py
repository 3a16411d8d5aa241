"""What a confined process may do, and what it needs of the system."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path

import msgspec

import asi_lab


class Level(StrEnum):
    """The levels, strongest first."""

    BUBBLEWRAP = "bubblewrap"
    LANDLOCK = "landlock"
    LIMITS = "limits"


class Policy(msgspec.Struct, frozen=True):
    """What one confined process may do.

    `workspace` is the only directory it can write to, `readable` are files and directories it can read
    besides the system, Python and this package, and `hidden` those below all of these whose contents it
    cannot read all the same, but for the level limits. `memory_bytes` bounds what a process allocates, 0
    leaves that to whoever watches. `processes` counts threads too. `cpu_seconds` are those of one process.
    `uid` is whom the program runs as where root starts it, None for whoever starts it.
    """

    workspace: str
    readable: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    memory_bytes: int = 0
    file_bytes: int = 2**30
    processes: int = 512
    open_files: int = 4096
    cpu_seconds: int = 24 * 3600
    uid: int | None = None


SYSTEM = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/opt/cuda", "/opt/rocm"),
    *("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives", "/etc/localtime"),
    "/run/opengl-driver",
)
"""What programs, compilers and drivers are made of. Links among them are kept."""


def system_paths() -> list[str]:
    """Those of `SYSTEM` that exist here, Python with its packages, this package with its linked folders."""
    package = Path(asi_lab.__file__).parent
    linked = [entry.resolve() for entry in package.iterdir() if entry.is_symlink()]
    prefixes = [
        Path(p).resolve() for p in (sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix)
    ]
    own = [*prefixes, package, *linked, Path(sys.prefix)]
    found = [path for path in SYSTEM if os.path.lexists(path)]
    return found + [path for path in dict.fromkeys(map(str, own)) if not is_below(path, found)]


def is_below(path: str, roots: Iterable[str]) -> bool:
    """Whether a path is one of the roots or lies below one, by its name alone."""
    return any(path == root or path.startswith(root.rstrip("/") + "/") for root in roots)


def gpu_devices() -> tuple[str, ...]:
    """Device files of NVIDIA and AMD GPUs, and of those that WSL passes on."""
    dev = Path("/dev")
    names = [path for pattern in ("nvidia*", "dri", "kfd", "dxg") for path in sorted(dev.glob(pattern))]
    return tuple(map(str, names))
