"""Where trials run: here, local processes in trios of a trial, a server and a scorer.

A trio is single use. The next one is started while the current one works, so that its imports cost
no time; it then waits for its jobs. This seam is all that knows where a trial runs and what confines it.

    trials/.waiting/next-.../trial.log, server.log, scorer.log   what they print, out of candidates' reach
    trials/.waiting/next-.../work/, serve/                       the working directories of trial and server,
                                                                 all that they can write to
    trials/.compiled/                                            what the references' trials compiled; others
                                                                 get a copy
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from asi_lab.data.builtin import hidden_paths
from asi_lab.data.manifest import MANIFEST_FILE, TRAIN_FILE
from asi_lab.engineer.allocation import VISIBLE
from asi_lab.engineer.child import Process
from asi_lab.engineer.workspace import Workspace, remove_tree
from asi_lab.protocol import COMPARED_FILE, Report, ScoreJob, ServeJob, TrialJob
from asi_lab.protocol import Command as Order
from asi_lab.sandbox import Level, Policy, Sandbox
from asi_lab.sandbox.command import ConfinedCommand
from asi_lab.sandbox.policy import gpu_devices
from asi_lab.settings import Settings

Source = Literal["trial", "server", "scorer"]
Worker = Literal["trial", "server"]
"""The processes that run candidate code, one after the other."""

TO_TRIAL = ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", VISIBLE, "CUDA_HOME")
"""All that a trial sees of the user's environment. Secrets are not among it."""

TO_SCORER = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HTTPS_PROXY", "https_proxy")
"""What the scorer sees besides: it may download the data of lm-eval's tasks, into the user's own cache."""

WORKER_ENDS = ("--in-fd", "--out-fd")
SCORER_ENDS = ("--trial-in", "--trial-out", "--server-in", "--server-out")
"""Options by which processes are told the ends of pipes that they inherit."""

MEMORY_MARGIN = 2 * 2**30
"""A process may allocate this much more than it may keep resident: stacks, arenas, what is never touched."""


class Health(msgspec.Struct, frozen=True):
    """How the process that runs candidate code is, the trial or, after it, the server, and what it uses of
    its limits.

    Exit statuses are None while alive, -n for signal n. `said_all` is true once nothing more can come from
    it: it has ended, and its reports are read."""

    at_work: Worker
    exit: int | None
    scorer_exit: int | None
    said_all: bool = False
    resident_bytes: int = 0
    printed_bytes: int = 0
    written_bytes: float = 0
    processes: int = 0
    cpu_seconds: float = 0.0


class Trio(Protocol):
    """A trial, a server and a scorer, wherever they run. Trial and server run candidate code, the server only
    after the trial was ended."""

    at_work: Worker

    def start(self, trial: TrialJob, score: ScoreJob | None, files: Mapping[str, Path]) -> None:
        """Lay `files` by name into the trial's working directory and give trial and scorer their jobs.
        Without a job for the scorer it ends."""

    def tell(self, order: Order) -> None:
        """Tell the scorer what to do next."""

    def serve(self, job: ServeJob, files: Mapping[str, Path]) -> None:
        """End the trial with all it has started, then lay `files` out for the server and give it its job."""

    def poll(self, seconds: float) -> list[tuple[Source, Report]]:
        """Wait up to `seconds` for reports of any of them; `MalformedReport` for what is none."""

    def health(self) -> Health:
        """How they are."""

    def cpu_seconds(self) -> float:
        """Processor seconds that the trial has taken since its job, with all its processes."""

    def said(self, source: Source) -> str:
        """The end of what one of them printed."""

    def take(self, name: str, destination: Path, pulse: Callable[[], object]) -> None:
        """Copy a file that the trial has written, calling `pulse` often; `Tampered` where it is no plain
        file."""

    def keep_compiled(self) -> None:
        """Let later trials start with what this one compiled: only where its code is trusted."""

    def finish(self, directory: Path) -> None:
        """End them at once and move their logs to `directory`."""


class Executor(Protocol):
    """One trial slot, wherever it is."""

    def prepare(self) -> None:
        """Get the next trio ready, if none is."""

    def take(self) -> Trio:
        """A trio that waits for its jobs."""

    def close(self) -> None:
        """End what waits."""


class LocalTrio:
    """A trial, a server and a scorer on this machine, joined by pipes."""

    def __init__(
        self,
        directory: Path,
        sandbox: Sandbox,
        policy: Policy,
        *,
        scored: bool = True,
        programs: Mapping[Worker, tuple[str, ...]] | None = None,
        compiled: Path | None = None,
        gpus: Sequence[str] = (),
    ) -> None:
        """Start them in `directory`, or the trial alone; its workspace is the folder `work` there, that of
        the server `serve`.

        What trusted trials compiled lies in `compiled`. `programs` run in the places of our own. `gpus` are
        all that the three see, by default those that the engine sees."""
        self.directory, self.compiled = directory, compiled
        self.at_work: Worker = "trial"
        self._cpu_before = 0.0
        self._seen = {VISIBLE: ",".join(gpus)} if gpus else {}
        self._sandbox, self._policy = sandbox, policy
        self._programs = {**MODULES, **(programs or {})}
        self._processes: dict[Source, Process] = {}
        self._workspaces: dict[Worker, Workspace] = {}
        with _pipes() as (to_trial, from_trial, by_trial), _pipes() as (to_server, from_server, by_server):
            self._begin("trial", "work", (to_trial, from_trial))
            if scored:
                self._begin("server", "serve", (to_server, from_server))
                environment = _scorer_environment(directory) | self._seen
                ends = dict(zip(SCORER_ENDS, (*by_trial, *by_server), strict=True))
                limit = f"--memory-bytes={policy.memory_bytes}"
                command = ConfinedCommand((*_python("asi_lab.scorer"), limit), environment)
                self._processes["scorer"] = Process(command, ends, directory / "scorer.log", directory)
        self._selector = selectors.DefaultSelector()
        for source, process in self._processes.items():
            self._selector.register(process.report_fd, selectors.EVENT_READ, source)

    def _begin(self, worker: Worker, folder: str, ends: tuple[int, int]) -> None:
        """Start what runs candidate code, confined to a workspace of its own."""
        workspace = self._workspaces[worker] = Workspace(self.directory / folder, self._policy.file_bytes)
        policy = msgspec.structs.replace(self._policy, workspace=str(workspace.path))
        if worker == "server":
            policy = msgspec.structs.replace(policy, readable=())
        environment = _trial_environment(workspace.path) | self._seen
        command = self._sandbox.command(policy, self._programs[worker], environment)
        self._processes[worker] = Process(
            command,
            dict(zip(WORKER_ENDS, ends, strict=True)),
            self.directory / f"{worker}.log",
            workspace.path,
            guarded=self._sandbox.level is not Level.BUBBLEWRAP,
        )

    def start(self, trial: TrialJob, score: ScoreJob | None, files: Mapping[str, Path]) -> None:
        """Lay out the files and give trial and scorer their jobs."""
        self._lay_out("trial", files)
        self._cpu_before = self._processes["trial"].usage().cpu_seconds
        self._processes["trial"].give(trial)
        if score is not None:
            self._processes["scorer"].give(score)

    def tell(self, order: Order) -> None:
        """Tell the scorer what to do next."""
        self._processes["scorer"].give(order)

    def serve(self, job: ServeJob, files: Mapping[str, Path]) -> None:
        """End the trial, and let the server take its place."""
        trial = self._processes["trial"]
        if trial.report_fd in self._selector.get_map():
            self._selector.unregister(trial.report_fd)
        trial.kill()
        self.at_work = "server"
        self._lay_out("server", files)
        self._processes["server"].give(job)

    def _lay_out(self, worker: Worker, files: Mapping[str, Path]) -> None:
        for name, source in files.items():
            self._workspaces[worker].put(source, name)
        if self.compiled is not None:
            self._workspaces[worker].warm(self.compiled)

    def poll(self, seconds: float) -> list[tuple[Source, Report]]:
        """Wait up to `seconds` for reports of any of them.

        The scorer is read last and counts first: a trial may have gone on because of what the scorer had
        said, never the other way round.

        Raises:
            MalformedReport: one that runs candidate code wrote something that is not a report.
        """
        found: list[tuple[Source, Report]] = []
        deadline = time.monotonic() + seconds
        while not found:
            ready = {key.data for key, _ in self._selector.select(max(0.0, deadline - time.monotonic()))}
            last = {"scorer"} & self._processes.keys() if ready else set()
            for source in (*(ready - last), *last):
                process = self._processes[source]
                reports = process.read()
                if not reports and source in ready and process.popen.poll() is not None:
                    self._selector.unregister(process.report_fd)
                found = [(source, report) for report in reports] + found
            if time.monotonic() >= deadline:
                break
        return found

    def is_whole(self) -> bool:
        """Whether all processes live."""
        return all(process.exit_status() is None for process in self._processes.values())

    def health(self) -> Health:
        """How the processes are."""
        process, scorer = self._processes[self.at_work], self._processes.get("scorer")
        written, usage = self._workspaces[self.at_work].used_bytes(), process.usage()
        of_trial = usage if self.at_work == "trial" else self._processes["trial"].usage()
        return Health(
            at_work=self.at_work,
            exit=process.exit_status(),
            scorer_exit=scorer.exit_status() if scorer else None,
            said_all=all(key.data != self.at_work for key in self._selector.get_map().values()),
            resident_bytes=usage.resident_bytes,
            printed_bytes=process.log_bytes(),
            written_bytes=written + usage.nameless_bytes,
            processes=usage.tasks,
            cpu_seconds=of_trial.cpu_seconds - self._cpu_before,
        )

    def cpu_seconds(self) -> float:
        """Processor seconds of the trial and all its processes since its job."""
        return self._processes["trial"].usage().cpu_seconds - self._cpu_before

    def said(self, source: Source) -> str:
        """The end of what one of the processes printed."""
        return self._processes[source].log_tail()

    def take(self, name: str, destination: Path, pulse: Callable[[], object]) -> None:
        """Copy a file that the trial has written."""
        self._workspaces["trial"].take(name, destination, pulse)

    def keep_compiled(self) -> None:
        """Add what the trial compiled to what later ones start from."""
        if self.compiled is not None:
            self._workspaces["trial"].keep_compiled(self.compiled)

    def finish(self, directory: Path) -> None:
        """End all processes and move what they logged to `directory`."""
        self.kill()
        for name in (*(f"{source}.log" for source in self._processes), COMPARED_FILE):
            if (self.directory / name).exists():
                shutil.move(self.directory / name, directory / name)
        remove_tree(self.directory)

    def kill(self) -> None:
        """End all processes."""
        self._selector.close()
        for process in self._processes.values():
            process.kill()


@contextlib.contextmanager
def _pipes() -> Iterator[tuple[int, int, tuple[int, int]]]:
    """Ends of two pipes for children to inherit: in and out of a worker, and (in, out) of the scorer to
    it."""
    to_worker, from_scorer = os.pipe()
    to_scorer, from_worker = os.pipe()
    try:
        yield to_worker, from_worker, (to_scorer, from_scorer)
    finally:
        for descriptor in (to_worker, from_worker, to_scorer, from_scorer):
            os.close(descriptor)


class LocalExecutor:
    """One trial slot on this machine."""

    def __init__(
        self, directory: Path, sandbox: Sandbox, data: Path, settings: Settings, gpus: Sequence[str] = ()
    ) -> None:
        """Waiting trios live in `directory`, those of other slots too. What a killed engine left there goes.

        `data` is the lab's data directory, of which a trial sees the training shard alone. `gpus` are those
        of this slot, as CUDA_VISIBLE_DEVICES names them; empty: all that the engine sees.
        """
        self._root = directory
        self._compiled = directory.with_name(".compiled")
        self._sandbox = sandbox
        self._policy = policy_of(settings, [data / MANIFEST_FILE, data / TRAIN_FILE])
        self._gpus = tuple(gpus)
        remove_tree(directory)
        self._waiting: LocalTrio | None = None
        # A process asks to die with its parent, which to the kernel is the thread that started it. The thread
        # that prepares a trio may end before the trio does, so another one starts all of them and lasts.
        self._starter = ThreadPoolExecutor(1, "starter")

    def prepare(self) -> None:
        """Start the next trio, so that it has its imports behind it when it is needed."""
        if self._waiting is None:
            self._waiting = self._starter.submit(self._trio).result()

    def _trio(self) -> LocalTrio:
        self._root.mkdir(parents=True, exist_ok=True)
        directory = Path(tempfile.mkdtemp(prefix="next-", dir=self._root))
        directory.chmod(0o755)  # root's trials run as another user
        return LocalTrio(directory, self._sandbox, self._policy, compiled=self._compiled, gpus=self._gpus)

    def take(self) -> LocalTrio:
        """The waiting trio, or a new one; also where one of the waiting was killed."""
        if self._waiting is not None and not self._waiting.is_whole():
            self._drop()
        self.prepare()
        assert self._waiting is not None
        trio, self._waiting = self._waiting, None
        return trio

    def close(self) -> None:
        """End the trio that waits."""
        self._drop()
        self._starter.shutdown()

    def _drop(self) -> None:
        if self._waiting is not None:
            self._waiting.kill()
            remove_tree(self._waiting.directory)
            self._waiting = None


def policy_of(settings: Settings, readable: Sequence[Path]) -> Policy:
    """The policy of a lab's trials; each gets its own workspace. What one process allocates is bounded on a
    CPU alone: GPU drivers reserve far more than they use. Processes are counted by user, those of all slots
    together; whoever watches a trial counts its own."""
    limits = settings.limits
    devices = () if settings.device == "cpu" else gpu_devices()
    gigabyte = 2**30
    return Policy(
        workspace="",
        readable=tuple(map(str, readable)),
        hidden=hidden_paths(),
        devices=devices,
        memory_bytes=0 if devices else int(limits.memory_gb * gigabyte) + MEMORY_MARGIN,
        file_bytes=int(limits.disk_gb * gigabyte),
        processes=limits.processes * max(1, settings.search.slots),
        cpu_seconds=int(limits.trial_seconds * (settings.train.threads or os.cpu_count() or 1)) + 60,
    )


def _python(module: str) -> tuple[str, ...]:
    return sys.executable, "-P", "-u", "-m", module


MODULES: dict[Worker, tuple[str, ...]] = {
    "trial": _python("asi_lab.trial"),
    "server": _python("asi_lab.trial.server"),
}


def _of_user(names: Sequence[str]) -> dict[str, str]:
    return {name: os.environ[name] for name in names if name in os.environ}


def _environment(home: Path) -> dict[str, str]:
    return _of_user(TO_TRIAL) | {
        "HOME": str(home),
        "USER": "asi-lab",
        "TMPDIR": str(home),
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }


def _trial_environment(workspace: Path) -> dict[str, str]:
    """Compile caches lie in the workspace: one that candidates shared would let one plant code in another.
    What is copied there at the start comes from trials of the references alone."""
    caches = {"TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton", "XDG_CACHE_HOME": ""}
    places = {name: str(workspace / "cache" / folder) for name, folder in caches.items()}
    return _environment(workspace) | places | {"TMPDIR": str(workspace / "tmp")}


def _scorer_environment(home: Path) -> dict[str, str]:
    shared = os.environ.get("HF_HOME") or str(Path.home() / ".cache" / "huggingface")
    return _environment(home) | _of_user(TO_SCORER) | {"HF_HOME": shared}
