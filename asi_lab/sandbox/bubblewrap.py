"""Level 1: namespaces by bubblewrap. What is not bound does not exist inside."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from asi_lab.sandbox.policy import Policy, is_below, system_paths

PROGRAM = "bwrap"


def arguments(policy: Policy, environment: dict[str, str], filter_descriptor: int) -> tuple[str, ...]:
    """The command line of `bwrap` up to the program to run.

    New user, process, network, IPC, host name and control group namespaces; an own /proc, /dev, /tmp and
    /dev/shm; only the workspace can be written to. `filter_descriptor` holds the system call filter. A
    program that is to run as another user needs no user namespace, but may change its user once.
    """
    program = shutil.which(PROGRAM) or PROGRAM
    command = [program, "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"]
    command += [
        "--unshare-cgroup-try",
        "--die-with-parent",
        "--new-session",
        "--clearenv",
        "--cap-drop",
        "ALL",
    ]
    if policy.uid is None:
        command.append("--unshare-user")
    else:
        command += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    for name, value in environment.items():
        command += ["--setenv", name, value]
    command += ["--proc", "/proc", "--dev", "/dev"]
    for place in ("/tmp", "/dev/shm"):
        command += ["--perms", "1777", "--size", str(policy.temporary_bytes), "--tmpfs", place]
    bound = [*system_paths(), *policy.readable]
    for folder in _folders([*bound, policy.workspace]):
        command += ["--perms", "0755", "--dir", folder]
    for path in bound:
        command += _bind(path)
    if policy.devices:  # the drivers look for the bus in /sys
        command += ["--ro-bind", "/sys", "/sys"]
        for device in policy.devices:
            command += ["--dev-bind", device, device]
    for path in policy.hidden:
        command += _cover(path, bound)
    command += ["--bind", policy.workspace, policy.workspace]
    return (*command, "--seccomp", str(filter_descriptor), "--")


def _folders(paths: Iterable[str]) -> list[str]:
    """The folders above all paths, outer ones first. Those that bubblewrap makes by itself are closed to
    other users."""
    above = (str(parent) for path in paths for parent in reversed(Path(path).parents[:-1]))
    return [folder for folder in dict.fromkeys(above) if folder not in ("/tmp", "/dev", "/dev/shm")]


def _cover(path: str, bound: Iterable[str]) -> list[str]:
    """Lay something empty over what is bound and hidden; what is not bound needs no cover."""
    place = Path(path).resolve()
    if not place.exists() or not is_below(str(place), [str(Path(root).resolve()) for root in bound]):
        return []
    if place.is_dir():
        return ["--perms", "0555", "--tmpfs", str(place), "--remount-ro", str(place)]
    return ["--ro-bind", os.devnull, str(place)]


def _bind(path: str) -> list[str]:
    """Links such as /bin are made again as they are; all else is bound for reading."""
    if Path(path).is_symlink():
        return ["--symlink", str(Path(path).readlink()), path]
    return ["--ro-bind", path, path]
