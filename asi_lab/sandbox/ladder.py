"""Which level holds on this machine, found out by running each of them."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from asi_lab.common import scratch
from asi_lab.errors import ConfigError
from asi_lab.sandbox import bubblewrap, landlock, seccomp
from asi_lab.sandbox.command import Sandbox, can_leave_root
from asi_lab.sandbox.policy import Level, Policy

PROBE_SECONDS = 30.0
PROBE_FOLDER = "asi-lab-probe-"
"""Beginning of a probe's temporary folder; the number of its process follows."""

UNCOVERED = {
    Level.BUBBLEWRAP: (
        "faults of the kernel and of the GPU driver",
        "load on processor, disk and GPU within the limits",
        "what can be learnt from timing",
        "the kernel's buffers of pipes and sockets, and deleted files on their way through them",
        "processor time of short-lived children that their parent does not wait for",
    ),
    Level.LANDLOCK: (
        "names, sizes and dates of files, though not their contents",
        "all that level bubblewrap does not cover",
    ),
    Level.LIMITS: (
        "your files: candidate code can read and change what you can",
        "the network, and your other programs",
        "secrets of other processes of yours, by /proc",
        "memory in /dev/shm, in queues and segments of System V, and shared memory that is not mapped",
        "a trial that ends its guard, which then outlives the search",
    ),
}
"""What each level leaves open. `uncovered` adds what depends on who asks."""


def uncovered(level: Level) -> tuple[str, ...]:
    """What a level leaves open here, in words."""
    if os.geteuid() != 0 or can_leave_root(level):
        return UNCOVERED[level]
    return (*UNCOVERED[level], "the number of processes: the kernel does not limit root, use another user")


class ProbedLevel(msgspec.Struct, frozen=True):
    """Whether a level holds here; if not, why, and how to get it."""

    level: Level
    holds: bool
    reason: str = ""
    fix: str = ""


class _Canaries(msgspec.Struct):
    """What the probe managed to do. The first must work; the others must not, below the last level."""

    write_workspace: bool
    read_secret: bool
    list_outside: bool
    write_outside: bool
    connect_tcp: bool
    connect_unix: bool
    read_environment: bool
    signal_engine: bool


_PROBE = """
import json, os, socket, sys
secret, outside, port, unix, pid = sys.argv[1:]
def attempt(act):
    try:
        act()
        return True
    except (OSError, ValueError):
        return False
def connect(family, address):
    with socket.socket(family) as client:
        client.settimeout(2)
        client.connect(address)
print(json.dumps({
    "write_workspace": attempt(lambda: open("probe", "w").write("x")),
    "read_secret": attempt(lambda: open(secret).read()),
    "list_outside": attempt(lambda: os.listdir(os.path.dirname(secret)).index(os.path.basename(secret))),
    "write_outside": attempt(lambda: open(outside, "w").write("x")),
    "connect_tcp": attempt(lambda: connect(socket.AF_INET, ("127.0.0.1", int(port)))),
    "connect_unix": attempt(lambda: connect(socket.AF_UNIX, unix)),
    "read_environment": attempt(lambda: open(f"/proc/{pid}/environ").read()),
    "signal_engine": attempt(lambda: os.kill(int(pid), 0)),
}))
"""


def probe() -> list[ProbedLevel]:
    """Try all levels, strongest first. The last one always holds, for what it is worth."""
    return [_bubblewrap(), _landlock(), ProbedLevel(Level.LIMITS, True)]


def choose(wanted: str, findings: Sequence[ProbedLevel]) -> Sandbox:
    """The sandbox for the setting `sandbox`.

    `auto` takes the strongest level that holds, `required` the same but never the last; a level's name takes
    that level.

    Raises:
        ConfigError: the level does not hold here; the message says how to get it.
    """
    held = [finding.level for finding in findings if finding.holds]
    if wanted == "auto" or (wanted == "required" and held[0] is not Level.LIMITS):
        return Sandbox(held[0])
    if wanted in held:
        return Sandbox(Level(wanted))
    missing = [f for f in findings if not f.holds and (wanted == "required" or f.level.value == wanted)]
    told = "\n".join(f"  {f.level.value}: {f.reason}. Fix: {f.fix}" for f in missing)
    raise ConfigError(
        f'sandbox = "{wanted}": expected a sandbox that confines trials; here it does not work:\n{told}\n'
        'Put this right, or set sandbox = "auto" in lab.toml to run with process limits alone.'
    )


def _bubblewrap() -> ProbedLevel:
    level = Level.BUBBLEWRAP
    if sys.platform != "linux":
        return ProbedLevel(level, False, "it needs Linux", "run the lab on Linux")
    if shutil.which(bubblewrap.PROGRAM) is None:
        return ProbedLevel(
            level, False, "bubblewrap is not installed", "apt install bubblewrap (or dnf, pacman)"
        )
    if not seccomp.is_available():
        return ProbedLevel(level, False, "libseccomp was not found", "apt install libseccomp2")
    trouble = _try(level)
    return ProbedLevel(level, not trouble, trouble, _bubblewrap_fix(trouble) if trouble else "")


def _bubblewrap_fix(trouble: str) -> str:
    if "unknown option" in trouble.lower():
        return "install bubblewrap 0.8 or newer"
    if _setting("kernel/apparmor_restrict_unprivileged_userns") == "1":
        return (
            "let bwrap make user namespaces: sudo apt install apparmor-profiles && sudo ln -s "
            "/usr/share/apparmor/extra-profiles/bwrap-userns-restrict /etc/apparmor.d/ && "
            "sudo systemctl reload apparmor"
        )
    if _setting("kernel/unprivileged_userns_clone") == "0":
        return "sudo sysctl -w kernel.unprivileged_userns_clone=1 (and in /etc/sysctl.d/ to keep it)"
    if _setting("user/max_user_namespaces") == "0":
        return "sudo sysctl -w user.max_user_namespaces=10000 (and in /etc/sysctl.d/ to keep it)"
    if Path("/.dockerenv").exists() or Path("/run/.containerenv").exists():
        return (
            "inside a container namespaces are closed: run it with --security-opt seccomp=unconfined "
            "--security-opt apparmor=unconfined --security-opt systempaths=unconfined, or run the lab outside"
        )
    return "try by hand: bwrap --unshare-all --ro-bind / / true"


def _setting(name: str) -> str:
    try:
        return Path("/proc/sys", name).read_text().strip()
    except OSError:
        return ""


def _landlock() -> ProbedLevel:
    level = Level.LANDLOCK
    if landlock.abi() == 0:
        fix = "use a kernel of 5.13 or newer with landlock in the boot option lsm="
        return ProbedLevel(level, False, "the kernel has no Landlock, or it is switched off", fix)
    if not seccomp.is_available():
        return ProbedLevel(level, False, "libseccomp was not found", "apt install libseccomp2")
    trouble = _try(level)
    fix = "use a kernel of 6.12 or newer" if "signal_engine" in trouble else "see asi-lab doctor --json"
    return ProbedLevel(level, not trouble, trouble, fix if trouble else "")


def _try(level: Level) -> str:
    """Run the canaries at a level; returns what is wrong with it, empty when it holds."""
    try:
        return _tried(level)
    except OSError as error:
        place = error.filename or scratch.PLACE
        return f"it cannot be tried in {place}: {error}; set TMPDIR to a folder with room and a short path"


def _tried(level: Level) -> str:
    with _traps() as (workspace, outside, arguments):
        command = Sandbox(level).command(
            Policy(str(workspace)),
            [sys.executable, "-P", "-S", "-c", _PROBE, *arguments],
            {"PATH": os.defpath},
        )
        try:
            done = subprocess.run(
                command.argv,
                env=command.environment,
                cwd=workspace,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=PROBE_SECONDS,
                start_new_session=True,
                check=False,
            )
            seen = msgspec.json.decode(done.stdout, type=_Canaries)
            seen.write_outside = outside.exists()  # what was written may lie in the sandbox's own /tmp
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"it cannot be started: {error}"
        except msgspec.MsgspecError:
            told = re.sub(r"\s+", " ", done.stderr.strip())[-300:] or f"exit status {done.returncode}"
            return f"it cannot be started: {told}"
    if not seen.write_workspace:
        return "a trial cannot write into its own directory"
    escaped = [
        name for name, done in msgspec.structs.asdict(seen).items() if done and name != "write_workspace"
    ]
    return f"it leaves open: {', '.join(escaped)}" if escaped else ""


@contextlib.contextmanager
def _traps() -> Iterator[tuple[Path, Path, list[str]]]:
    """A workspace, a path outside of it, and what the canaries must not reach: files, sockets, this one."""
    scratch.sweep(PROBE_FOLDER)
    with (
        scratch.held(PROBE_FOLDER) as folder,
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.socket(socket.AF_UNIX) as local,
    ):
        workspace, secret, outside, unix = (
            Path(folder, name) for name in ("workspace", "secret", "outside", "socket")
        )
        workspace.mkdir()
        secret.write_text("secret")
        local.bind(str(unix))
        local.listen()
        arguments: list[Any] = [secret, outside, server.getsockname()[1], unix, os.getpid()]
        yield workspace, outside, [str(argument) for argument in arguments]
