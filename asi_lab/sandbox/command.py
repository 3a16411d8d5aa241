"""How a level makes a command line of a policy, and whom the program runs as."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from asi_lab.sandbox import bubblewrap
from asi_lab.sandbox.policy import Level, Policy, system_paths


class ConfinedCommand(msgspec.Struct, frozen=True):
    """How to start a process: its command line and all of its environment."""

    argv: tuple[str, ...]
    environment: dict[str, str]


class Sandbox:
    """One level, ready to confine."""

    def __init__(self, level: Level) -> None:
        self.level = level

    def command(self, policy: Policy, argv: Sequence[str], environment: dict[str, str]) -> ConfinedCommand:
        """The command that runs `argv` under the policy with exactly this environment.

        The process leads a group of its own. Killing it ends all it has started: at the level bubblewrap at
        once, at the others when it is sent SIGTERM, which its guard answers by killing all descendants.
        """
        if self.level is Level.BUBBLEWRAP:
            for folder in bubblewrap.TEMPORARY.values():
                Path(policy.workspace, folder).mkdir(exist_ok=True)
        policy = _as_nobody(policy, self.level)
        spec = msgspec.json.encode(policy).decode()
        inner = (sys.executable, "-P", "-m", "asi_lab.sandbox.confine", self.level.value, spec, *argv)
        if self.level is not Level.BUBBLEWRAP:
            return ConfinedCommand(inner, environment)
        return ConfinedCommand((*bubblewrap.arguments(policy, environment), *inner), {})


UNPRIVILEGED = 64_873
"""Whom root's trials run as. It owns nothing else, so the kernel's limit of processes counts them alone."""


def can_leave_root(level: Level, paths: Sequence[str] = (), workspace: str = "/") -> bool:
    """Whether a trial that root starts can run as another user: Python, this package and `paths` must be open
    to all. At the level bubblewrap they are all there is; at the others the way to them counts too."""
    needed = {path: Path(path).stat().st_mode for path in (*system_paths(), *paths)}
    if level is not Level.BUBBLEWRAP:
        ways = {parent for path in (*needed, workspace) for parent in Path(path).parents}
        if not all(way.stat().st_mode & stat.S_IXOTH for way in ways):
            return False
    return all(
        mode & stat.S_IROTH and (mode & stat.S_IXOTH or not stat.S_ISDIR(mode)) for mode in needed.values()
    )


def _as_nobody(policy: Policy, level: Level) -> Policy:
    """Have root's trials run without its rights where they can, and hand the workspace over: the kernel does
    not limit the processes of root."""
    workspace = Path(policy.workspace)
    if os.geteuid() != 0 or not can_leave_root(level, policy.readable, policy.workspace):
        return policy
    try:
        for path in (workspace, *workspace.iterdir()):
            os.chown(path, UNPRIVILEGED, UNPRIVILEGED)
    except OSError:
        return policy
    return msgspec.structs.replace(policy, uid=UNPRIVILEGED)
