"""Engines that meet faults, as many as asked for: forks one for each line of JSON it reads.

    python tests/faults/engine_server.py

A line is `{"lab": PATH, "experiments": N}` with any of these:

    "kill": K             SIGKILL at boundary K, counted from 1: right before or right behind a durable
                          change of the store or of the repository
    "stop": K             SIGSTOP at boundary K, and SIGCONT "stopped" seconds later
    "signals": [[T, N], ...]   signal number N after T seconds
    "clock": [T, ...]     what the wall clock says: it runs on by a second at each look, and after every
                          "every" looks it is set to the next T; otherwise it stands still
    "file_bytes": N       no file may grow beyond N bytes, which fails as a full disk does
    "map_bytes": N        the store's memory map starts so small
    "prepare": true       prepare the data as the real engine does; otherwise it is taken as it is
    "delay": SECONDS      how long each step of a trial takes
    "hours": H            the budget

`{"program": [ARGUMENT, ...]}` runs the command line program instead.
The answer is a line with the exit status (negative for a signal), what went to standard output and error,
and the boundaries that were passed. Store, lineage, lock and signals are real; trials are simulated.
"""

from __future__ import annotations

import itertools
import json
import os
import resource
import signal
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import git  # noqa: F401  # what is imported where it is needed is imported once, before the forks
import scipy.special  # noqa: F401
import simulated_engine

from asi_lab import cli, heartbeat
from asi_lab.common import process
from asi_lab.engineer import supervise
from asi_lab.knowledge import rank
from asi_lab.lab import Lineage, Store, preparing
from asi_lab.lab.repository import Repository
from asi_lab.llm import prompting
from asi_lab.records import Candidate
from asi_lab.settings import AgentSettings
from asi_lab.view import leaderboard, page, remote, tables  # noqa: F401

NOW = 1_700_000_000.0
STORE = ("put", "put_baseline", "append_series", "drop_series", "append_events", "record_command", "put_meta")
GIT = ("fast-import", "read-tree", "update-ref", "pack-refs", "repack")


class Boundaries:
    """Counts the durable changes and ends the process at the chosen place."""

    def __init__(self, file: Path, faults: dict[int | None, signal.Signals]) -> None:
        self.file, self.faults, self.count = file, faults, 0
        for name in STORE:
            self._wrap(Store, name, _of_store)
        self._wrap(Lineage, "_git_process", _of_git)
        self._wrap(Repository, "lay_out", lambda *_: "git layout")
        self._wrap(Repository, "write_head", lambda *_: "git head")

    def _wrap(self, owner: type, name: str, label: Callable[..., str | None]) -> None:
        change = getattr(owner, name)

        def between(this: Any, *arguments: Any, **named: Any) -> Any:
            what = label(name, *arguments)
            if what is None:
                return change(this, *arguments, **named)
            self._pass(f"before {what}")
            result = change(this, *arguments, **named)
            self._pass(f"after {what}")
            return result

        setattr(owner, name, between)

    def _pass(self, where: str) -> None:
        self.count += 1
        with self.file.open("a") as file:
            file.write(f"{where}\n")
        if self.count in self.faults:
            os.kill(os.getpid(), self.faults[self.count])


def _of_store(name: str, *arguments: Any) -> str:
    first = arguments[0] if arguments else None
    if isinstance(first, Candidate):
        return f"candidate {first.id} {first.state.value}{' published' if first.commit else ''}"
    return f"{name} {first}" if name == "put_meta" else name


def _of_git(_: str, *arguments: str) -> str | None:
    command, first = arguments[0], arguments[1]
    if command not in GIT:
        return None
    return f"git {command} {first}" if command == "update-ref" else f"git {command}"


def _clock(times: list[float], every: int) -> Iterator[float]:
    for start in itertools.cycle(times):
        for look in range(every):
            yield start + look


def _serve(request: dict[str, Any], boundaries: Path) -> int:
    """Be the engine that was asked for."""
    if "program" in request:
        sys.argv[1:] = request["program"]
        cli.main()
    times = request.get("clock")
    wall = _clock(times, request["every"]) if times else itertools.repeat(NOW)
    time.time = lambda: next(wall)
    supervise.Clock = lambda: types.SimpleNamespace(now=lambda: 0.0)  # type: ignore[assignment,misc]  # records hold times
    heartbeat.HEARTBEAT_SECONDS = 1e9  # beats that depend on the machine's speed would be other boundaries
    if request.get("prepare"):
        preparing.run_module = process.run_module
    else:
        preparing.data = lambda rung, tick, say: []
    Boundaries(boundaries, {request.get("kill"): signal.SIGKILL, request.get("stop"): signal.SIGSTOP})
    if "map_bytes" in request:
        Store.open.__func__.__kwdefaults__["map_size"] = request["map_bytes"]  # type: ignore[attr-defined]
    if "file_bytes" in request:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["file_bytes"],) * 2)
    options = [request["lab"], request["experiments"], request.get("delay", 0.0)]
    sys.argv[1:] = [str(option) for option in (*options, *([request["hours"]] if "hours" in request else []))]
    return simulated_engine.main()


def _answer(request: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Fork the engine, wait for its end and tell how it was."""
    said, boundaries = folder / "said", folder / "boundaries"
    said.write_bytes(b"")
    boundaries.write_bytes(b"")
    if (child := os.fork()) == 0:
        for stream in (1, 2):
            os.dup2(os.open(said, os.O_WRONLY | os.O_APPEND), stream)
        code: Any = 70
        try:
            code = _serve(request, boundaries)
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stdout.flush()
            os._exit(code)
    code = _watched(child, request)
    printed, passed = said.read_text(errors="surrogateescape"), boundaries.read_text().splitlines()
    return {"code": code, "said": printed, "boundaries": passed}


def _watched(child: int, request: dict[str, Any]) -> int:
    """Wait for the engine's end, stop and kill it as asked; returns its exit status."""
    signals, begun = list(request.get("signals", ())), time.monotonic()
    while True:
        pid, status = os.waitpid(child, os.WUNTRACED | (os.WNOHANG if signals else 0))
        if pid and os.WIFSTOPPED(status):
            if "stop" in request:
                time.sleep(request["stopped"])
                os.kill(child, signal.SIGCONT)
        elif pid:
            return os.waitstatus_to_exitcode(status)
        elif time.monotonic() - begun >= signals[0][0]:
            os.kill(child, signals.pop(0)[1])
        else:
            time.sleep(0.005)


def main() -> None:
    """Answer until there are no more lines."""
    prompting.load_all()  # what engines keep in memory is read once, before the forks
    rank.adviser(AgentSettings(), Path())
    with tempfile.TemporaryDirectory() as folder:
        for line in sys.stdin:
            print(json.dumps(_answer(json.loads(line), Path(folder))), flush=True)


if __name__ == "__main__":
    main()
