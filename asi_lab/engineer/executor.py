"""Where trials run: here, local processes in pairs of a trial and its scorer.

A pair is single use. The next one is started while the current one works, so that its imports cost
no time; it then waits for its job. This seam is all that knows where a trial runs and what confines it.

    trials/.waiting/next-.../trial.log, scorer.log   what the two print, out of the trial's reach
    trials/.waiting/next-.../work/                   the trial's working directory, all that it can write to
    trials/.compiled/                                what the references' trials compiled; others get a copy
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from asi_lab.data.manifest import MANIFEST_FILE, TRAIN_FILE
from asi_lab.engineer.process import Process
from asi_lab.engineer.workspace import Workspace, remove_tree
from asi_lab.places import VISIBLE
from asi_lab.protocol import Report, ScoreJob, TrialJob
from asi_lab.sandbox import Level, Policy, Sandbox
from asi_lab.sandbox.command import Command
from asi_lab.sandbox.policy import gpu_devices
from asi_lab.settings import Settings

Source = Literal["trial", "scorer"]

TO_TRIAL = ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", VISIBLE, "CUDA_HOME")
"""All that a trial sees of the user's environment. Secrets are not among it."""

TO_SCORER = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HTTPS_PROXY", "https_proxy")
"""What the scorer sees besides: it may download the data of lm-eval's tasks, into the user's own cache."""

MEMORY_MARGIN = 2 * 2**30
"""A process may allocate this much more than it may keep resident: stacks, arenas, what is never touched."""


class Health(msgspec.Struct, frozen=True):
    """Exit statuses (None while alive, -n for signal n), and what the trial uses of its limits.

    `said_all` is true once nothing more can come from the trial: it has ended, and its reports are read.
    """

    trial_exit: int | None
    scorer_exit: int | None
    said_all: bool = False
    trial_bytes: int = 0
    printed_bytes: int = 0
    written_bytes: float = 0
    processes: int = 0


class TrialPair(Protocol):
    """A trial and its scorer, wherever they run."""

    def start(self, trial: TrialJob, score: ScoreJob | None, files: Mapping[str, Path]) -> None:
        """Lay `files` by name into the trial's working directory and give both their jobs. Without a job for
        the scorer it ends."""

    def poll(self, seconds: float) -> list[tuple[Source, Report]]:
        """Wait up to `seconds` for reports of either process; `MalformedReport` for what is none."""

    def health(self) -> Health:
        """How the two are."""

    def said(self, source: Source) -> str:
        """The end of what one of them printed."""

    def take(self, name: str, destination: Path) -> None:
        """Fetch a file that the trial has written; `Tampered` where it is no plain file."""

    def keep_compiled(self) -> None:
        """Let later trials start with what this one compiled: only where its code is trusted."""

    def finish(self, directory: Path) -> None:
        """End both at once and move their logs to `directory`."""


class Executor(Protocol):
    """One trial slot, wherever it is."""

    def prepare(self) -> None:
        """Get the next pair ready, if none is."""

    def take(self) -> TrialPair:
        """A pair that waits for its job."""

    def close(self) -> None:
        """End what waits."""


class Pair:
    """A trial and its scorer on this machine, joined by two pipes."""

    def __init__(
        self,
        directory: Path,
        sandbox: Sandbox,
        policy: Policy,
        *,
        scored: bool = True,
        program: tuple[str, ...] = (),
        compiled: Path | None = None,
        gpus: Sequence[str] = (),
    ) -> None:
        """Start both in `directory`, or the trial alone; the trial's workspace is the folder `work` there.

        What trusted trials compiled lies in `compiled`. `program` runs as the trial instead of our own.
        `gpus` are all that the two see, by default those that the engine sees.
        """
        self.directory, self.compiled = directory, compiled
        self.workspace = Workspace(directory / "work")
        work = self.workspace.path
        policy = msgspec.structs.replace(policy, workspace=str(work))
        seen = {VISIBLE: ",".join(gpus)} if gpus else {}
        environment = _trial_environment(work) | seen
        trial = sandbox.command(policy, program or _python("asi_lab.train.trial"), environment)
        scorer = Command(_python("asi_lab.evaluate.scorer"), _scorer_environment(directory) | seen)
        guarded = sandbox.level is not Level.BUBBLEWRAP
        with _two_pipes() as (to_trial, from_trial, to_scorer, from_scorer):
            self.trial = Process(trial, (to_trial, from_trial), directory / "trial.log", work, guarded)
            self._processes: dict[Source, Process] = {"trial": self.trial}
            if scored:
                ends, log = (to_scorer, from_scorer), directory / "scorer.log"
                self._processes["scorer"] = Process(scorer, ends, log, directory)
        self._selector = selectors.DefaultSelector()
        for source, process in self._processes.items():
            self._selector.register(process.report_fd, selectors.EVENT_READ, source)

    def start(self, trial: TrialJob, score: ScoreJob | None, files: Mapping[str, Path]) -> None:
        """Lay out the files and give both their jobs."""
        for name, source in files.items():
            self.workspace.put(source, name)
        if self.compiled is not None:
            self.workspace.warm(self.compiled)
        self.trial.give(trial)
        if score is not None:
            self._processes["scorer"].give(score)

    def poll(self, seconds: float) -> list[tuple[Source, Report]]:
        """Wait up to `seconds` for reports of either process.

        Raises:
            MalformedReport: the trial wrote something that is not a report.
        """
        found: list[tuple[Source, Report]] = []
        deadline = time.monotonic() + seconds
        while not found and (left := deadline - time.monotonic()) > 0 and self._selector.get_map():
            for key, _ in self._selector.select(left):
                process = self._processes[key.data]
                reports = process.read()
                if not reports and process.popen.poll() is not None:
                    self._selector.unregister(key.fileobj)
                found += [(key.data, report) for report in reports]
        return found

    def health(self) -> Health:
        """How the two processes are."""
        resident, processes = self.trial.usage()
        scorer = self._processes.get("scorer")
        return Health(
            trial_exit=self.trial.exit_status(),
            scorer_exit=scorer.exit_status() if scorer else None,
            said_all=all(key.data != "trial" for key in self._selector.get_map().values()),
            trial_bytes=resident,
            printed_bytes=self.trial.log_bytes(),
            written_bytes=self.workspace.used_bytes(),
            processes=processes,
        )

    def said(self, source: Source) -> str:
        """The end of what one of the processes printed."""
        return self._processes[source].log_tail()

    def take(self, name: str, destination: Path) -> None:
        """Move a file that the trial has written."""
        self.workspace.take(name, destination)

    def keep_compiled(self) -> None:
        """Add what the trial compiled to what later ones start from."""
        if self.compiled is not None:
            self.workspace.keep_compiled(self.compiled)

    def finish(self, directory: Path) -> None:
        """End both processes and move their logs to `directory`."""
        self.kill()
        for process in self._processes.values():
            if process.log.exists():
                shutil.move(process.log, directory / process.log.name)
        remove_tree(self.directory)

    def kill(self) -> None:
        """End both processes."""
        self._selector.close()
        for process in self._processes.values():
            process.kill()


@contextlib.contextmanager
def _two_pipes() -> Iterator[tuple[int, int, int, int]]:
    """Ends for children to inherit: in and out of the trial, in and out of the scorer."""
    to_trial, from_scorer = os.pipe()
    to_scorer, from_trial = os.pipe()
    try:
        yield to_trial, from_trial, to_scorer, from_scorer
    finally:
        for descriptor in (to_trial, from_trial, to_scorer, from_scorer):
            os.close(descriptor)


class LocalExecutor:
    """One trial slot on this machine."""

    def __init__(
        self, directory: Path, sandbox: Sandbox, data: Path, settings: Settings, gpus: Sequence[str] = ()
    ) -> None:
        """Waiting pairs live in `directory`, those of other slots too. What a killed engine left there goes.

        `data` is the lab's data directory, of which a trial sees the training shard alone. `gpus` are those
        of this slot, as CUDA_VISIBLE_DEVICES names them; empty: all that the engine sees.
        """
        self._root = directory
        self._compiled = directory.with_name(".compiled")
        self._sandbox = sandbox
        self._policy = policy_of(settings, [data / MANIFEST_FILE, data / TRAIN_FILE])
        self._gpus = tuple(gpus)
        remove_tree(directory)
        self._waiting: Pair | None = None
        # A process asks to die with its parent, which to the kernel is the thread that started it. The thread
        # that prepares a pair may end before the pair does, so another one starts all pairs and lasts.
        self._starter = ThreadPoolExecutor(1, "starter")

    def prepare(self) -> None:
        """Start the next pair, so that it has its imports behind it when it is needed."""
        if self._waiting is None:
            self._waiting = self._starter.submit(self._pair).result()

    def _pair(self) -> Pair:
        self._root.mkdir(parents=True, exist_ok=True)
        directory = Path(tempfile.mkdtemp(prefix="next-", dir=self._root))
        directory.chmod(0o755)  # root's trials run as another user
        return Pair(directory, self._sandbox, self._policy, compiled=self._compiled, gpus=self._gpus)

    def take(self) -> Pair:
        """The waiting pair, or a new one."""
        self.prepare()
        assert self._waiting is not None
        pair, self._waiting = self._waiting, None
        return pair

    def close(self) -> None:
        """End the pair that waits."""
        if self._waiting is not None:
            self._waiting.kill()
            remove_tree(self._waiting.directory)
            self._waiting = None
        self._starter.shutdown()


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
        devices=devices,
        memory_bytes=0 if devices else int(limits.memory_gb * gigabyte) + MEMORY_MARGIN,
        file_bytes=int(limits.disk_gb * gigabyte),
        processes=limits.processes * max(1, settings.search.slots),
        cpu_seconds=int(limits.trial_seconds * (settings.train.threads or os.cpu_count() or 1)) + 60,
    )


def _python(module: str) -> tuple[str, ...]:
    return sys.executable, "-u", "-m", module


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
