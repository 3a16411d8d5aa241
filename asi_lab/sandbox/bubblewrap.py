"""Level 1: namespaces by bubblewrap. What is not bound does not exist inside."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from asi_lab.sandbox.policy import Policy, is_below, system_paths

PROGRAM = "bwrap"


TEMPORARY = {"/tmp": "tmp", "/dev/shm": "shm"}
"""Folders of the workspace that lie in these places: what is written there counts as disk, not as nobody's
memory."""


def arguments(policy: Policy, environment: dict[str, str]) -> tuple[str, ...]:
    """The command line of `bwrap` up to the guard to run, which is the first process of its namespace.

    New user, process, network, IPC, host name and control group namespaces; an own /proc and /dev; only the
    workspace can be written to, which must hold the folders of `TEMPORARY`. A program that is to run as
    another user needs no user namespace, but may change its user once.
    """
    program = shutil.which(PROGRAM) or PROGRAM
    command = [program, "--unshare-pid", "--as-pid-1", "--unshare-net", "--unshare-ipc", "--unshare-uts"]
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
    for place, folder in TEMPORARY.items():
        command += ["--bind", str(Path(policy.workspace, folder)), place]
    bound = [*system_paths(), *policy.readable]
    for folder in _folders([*bound, policy.workspace]):
        command += ["--perms", "0755", "--dir", folder]
    for path in bound:
        command += _bind(path)
    if policy.devices:  # the drivers look for the bus in /sys
        command += ["--ro-bind", "/sys", "/sys"]
        for device in policy.devices:
            command += ["--dev-bind", device, device]
    shown = [str(Path(path).resolve()) for path in bound]
    hidden = [path for path in policy.hidden if not is_below(str(Path(path).parent), policy.hidden)]
    for path in hidden:  # a cover cannot lie in a cover
        command += _cover(path, shown)
    command += ["--bind", policy.workspace, policy.workspace]
    return (*command, "--remount-ro", "/dev", "--remount-ro", "/", "--")


def _folders(paths: Iterable[str]) -> list[str]:
    """The folders above all paths, outer ones first. Those that bubblewrap makes by itself are closed to
    other users."""
    above = (str(parent) for path in paths for parent in reversed(Path(path).parents[:-1]))
    return [folder for folder in dict.fromkeys(above) if folder not in ("/tmp", "/dev", "/dev/shm")]


def _cover(path: str, shown: Sequence[str]) -> list[str]:
    """Lay something empty over what is hidden below what is `shown`, links followed; all else needs no
    cover."""
    place = Path(path).resolve()
    if not place.exists() or not is_below(str(place), shown):
        return []
    if place.is_dir():
        return ["--perms", "0555", "--tmpfs", str(place), "--remount-ro", str(place)]
    return ["--ro-bind", os.devnull, str(place)]


def _bind(path: str) -> list[str]:
    """Links such as /bin are made again as they are; all else is bound for reading."""
    if Path(path).is_symlink():
        return ["--symlink", str(Path(path).readlink()), path]
    return ["--ro-bind", path, path]
