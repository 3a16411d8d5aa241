"""Runs a program confined; started by `Sandbox.command`.

    python -m asi_lab.sandbox.confine LEVEL POLICY PROGRAM [ARGUMENT]...

This process stays behind as a guard: it becomes the parent of whatever the program leaves behind, so that
nothing outlives the program, it dies with the engine, and its word alone says whether the program was ended
by a signal. At the level bubblewrap the namespaces are already there, of whose processes it is the first.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import select
import signal
import sys
import time
from types import FrameType
from typing import NoReturn

import msgspec
import psutil

from asi_lab.common.process import die_with_parent, limit
from asi_lab.sandbox import landlock, seccomp
from asi_lab.sandbox.policy import Level, Policy, system_paths

_PR_SET_DUMPABLE, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS, _PR_CAPBSET_DROP = 4, 36, 38, 24
_CAPABILITY_VERSION, _CAPABILITIES = 0x20080522, 64
SWEEP_SECONDS = 10.0
FIRST_SIGNAL_CODE = 128
OTHER_FAILURE = 127
"""What a program counts as that ends with a code which is a signal's."""
MARGIN = 1024
"""Outside of a user namespace the limit of processes counts all of the user's, who may start some more."""

PROC = (
    "cpuinfo",
    "meminfo",
    "stat",
    "filesystems",
    "devices",
    "driver",
    "version",
    "sys/kernel/cap_last_cap",
)
"""What a program needs of /proc besides its own entry."""

_libc = ctypes.CDLL(None, use_errno=True)


def main() -> NoReturn:
    """Entry point; guards the program and exits with its status: below 128 its own, 128 + n for signal n."""
    level, policy = Level(sys.argv[1]), msgspec.json.decode(sys.argv[2], type=Policy)
    program = sys.argv[3:]
    if _is_forsaken():
        sys.exit(OTHER_FAILURE)
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)  # the program cannot write into its guard
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        _confine(level, policy)
        os.execvp(program[0], program)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.close(0)
    code = os.waitstatus_to_exitcode(_reap(child) if level is Level.BUBBLEWRAP else _guard(child))
    if code < 0:
        os._exit(FIRST_SIGNAL_CODE - code)
    os._exit(code if code < FIRST_SIGNAL_CODE else OTHER_FAILURE)


def _is_forsaken() -> bool:
    """Whether nobody is left who could give the program its job. An engine that dies while bubblewrap forks
    takes bubblewrap with it, but not what has just been forked."""
    stdin = select.poll()
    stdin.register(0, select.POLLIN)
    return stdin.poll(0) == [(0, select.POLLHUP)]


def _confine(level: Level, policy: Policy) -> None:
    _become(policy.uid)
    os.chdir(policy.workspace)
    die_with_parent()
    alone = level is Level.BUBBLEWRAP or policy.uid is not None
    _limit(policy, others=0 if alone else _tasks_of_user() + MARGIN)
    _drop_capabilities()
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    on_cpu = not policy.devices
    if level is Level.BUBBLEWRAP:
        seccomp.build(sockets=True, on_cpu=on_cpu).load()
    if level is Level.LANDLOCK:
        own = [f"/proc/{name}" for name in (*PROC, "self", "thread-self")]
        readable = [*system_paths(), *policy.readable, *own, *(["/sys"] if policy.devices else [])]
        plain = ["/dev/null", "/dev/random", "/dev/urandom"]
        landlock.restrict(readable, [policy.workspace], [*plain, *policy.devices], policy.hidden)
        seccomp.build(sockets=False, on_cpu=on_cpu).load()


def _become(uid: int | None) -> None:
    """Give up being root, for good."""
    if uid is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)


def _limit(policy: Policy, others: int = 0) -> None:
    """Set the resource limits of a policy.

    `others` are processes and threads that the kernel counts against the same limit.
    """
    limits = {
        resource.RLIMIT_FSIZE: policy.file_bytes,
        resource.RLIMIT_NPROC: policy.processes + others,
        resource.RLIMIT_NOFILE: policy.open_files,
        resource.RLIMIT_CPU: policy.cpu_seconds,
        resource.RLIMIT_CORE: 0,
    }
    if policy.memory_bytes:
        limits[resource.RLIMIT_DATA] = policy.memory_bytes
    limit(limits)


def _tasks_of_user() -> int:
    """Processes and threads that the user has now."""
    mine = os.getuid()
    found = psutil.process_iter(["uids", "num_threads"])
    return sum(p.info["num_threads"] or 0 for p in found if p.info["uids"] and p.info["uids"].real == mine)


def _drop_capabilities() -> None:
    """Give up what root may do beyond its own files, for good."""
    for capability in range(_CAPABILITIES):
        _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    none = (ctypes.c_uint32 * 6)()
    _libc.capset(ctypes.byref(header), ctypes.byref(none))


def _reap(child: int) -> int:
    """Wait for the program and for whatever others leave behind; returns its status. The namespace ends with
    its first process."""
    ended = status = 0
    while ended != child:
        ended, status = os.wait()
    return status


def _guard(child: int) -> int:
    """Wait for the program and end all that is left of it; returns its status.

    SIGTERM, from the engine or because the engine died, ends the program at once.
    """

    def end(number: int, frame: FrameType | None) -> None:
        del number, frame
        _kill_group(child)

    signal.signal(signal.SIGTERM, end)
    die_with_parent(signal.SIGTERM)
    with contextlib.suppress(PermissionError):  # to be heard among thousands of processes; root only
        os.setpriority(os.PRIO_PROCESS, 0, -20)
    _, status = os.waitpid(child, 0)
    _kill_group(child)
    _sweep()
    return status


def _kill_group(child: int) -> None:
    """End the program and all that did not leave its process group, none of which can fork meanwhile."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)


def _sweep() -> None:
    """End the descendants that left the group. They are stopped first, so that none forks meanwhile."""
    me, deadline = psutil.Process(), time.monotonic() + SWEEP_SECONDS
    stopped: set[int] = set()
    while time.monotonic() < deadline:
        found = {process.pid for process in me.children(recursive=True)}
        for pid in found - stopped or found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL if found <= stopped else signal.SIGSTOP)
        stopped |= found
        try:
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
        except ChildProcessError:
            return


if __name__ == "__main__":
    main()
