"""Processes: facts and settings of this one, and how the engine runs a module in one of its own."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence

import psutil

from asi_lab.common import cgroup
from asi_lab.errors import DataError

TICK_SECONDS = 0.2

_PR_SET_PDEATHSIG = 1
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


def physical_cores() -> int:
    """Physical cores this process may use all the time, at least one."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return int(max(1, min(allowed, psutil.cpu_count(logical=False) or allowed, cgroup.own().cores())))


def die_with_parent(number: int = signal.SIGKILL) -> None:
    """Ask the kernel to send this process a signal when its parent dies, so that no trial is orphaned."""
    if sys.platform != "linux":
        return
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def bound_to_me(argv: Sequence[str]) -> tuple[str, ...]:
    """The command line that runs `argv` so that it is killed when this process dies, from before its own
    first instruction, and before this process where the kernel wants memory; `argv` itself where util-linux
    is missing. A parent that died before the kernel was asked is found by comparing."""
    setpriv = _setpriv()
    if setpriv is None:
        return tuple(argv)
    first = "echo 1000 >/proc/self/oom_score_adj"
    mine = f'[ "$PPID" = {os.getpid()} ] || exit; {{ {first}; }} 2>/dev/null; exec "$@"'
    return (setpriv, "--pdeathsig", "KILL", "--", "/bin/sh", "-c", mine, "sh", *argv)


@functools.cache
def _setpriv() -> str | None:
    """The program of util-linux, where it knows how to ask for this."""
    program = shutil.which("setpriv")
    if program is None:
        return None
    tried = subprocess.run([program, "--pdeathsig", "KILL", "--", "true"], capture_output=True, check=False)
    return program if tried.returncode == 0 else None


def limit(wanted: Mapping[int, int]) -> None:
    """Set resource limits of this process, by `resource.RLIMIT_...`, hard and soft, never above what the user
    has."""
    for kind, value in wanted.items():
        _, most = resource.getrlimit(kind)
        value = value if most == resource.RLIM_INFINITY else min(value, most)
        resource.setrlimit(kind, (value, value))


def tune_allocator() -> None:
    """Keep freed memory in the process instead of mapping and unmapping it for every large tensor.

    Training small models on a CPU is 2 to 3 times as fast with it (glibc only; elsewhere nothing is done).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_M_TOP_PAD, 64 * 2**20)


def forget_packages(names: Iterable[str]) -> None:
    """Have this process find no package of these names: importing one raises `ModuleNotFoundError`, as where
    it is not installed, instead of whatever a folder raises that the sandbox hides."""
    for name in names:
        sys.modules[name] = None  # type: ignore[assignment]


def run_module(
    module: str, arguments: list[str], tick: Callable[[], None], environment: Mapping[str, str] = {}
) -> list[str]:
    """Run a module of ours in a process of its own, which ends with this one; returns the lines that it
    printed. `tick` is called a few times a second; whatever it raises ends the process. `environment` is set
    in it beside ours.

    Raises:
        DataError: it failed, with what it said.
    """
    with subprocess.Popen(
        [sys.executable, "-P", "-m", module, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl+C is for the engine
        env={**os.environ, **environment},
        preexec_fn=die_with_parent,
    ) as process:
        try:
            while True:
                try:
                    out, err = process.communicate(timeout=TICK_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    tick()
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
    if process.returncode != 0:
        raise DataError(err.strip() or f"{module} ended with status {process.returncode}")
    return out.splitlines()
