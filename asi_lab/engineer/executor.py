"""Where trials run: here, local processes in pairs of a trial and its scorer.

A pair is single use. The next one is started while the current one works, so that its imports cost
no time; it then waits for its job. This seam is all that knows where a trial runs.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Literal, Protocol

import msgspec
import psutil

from asi_lab import protocol
from asi_lab.errors import TrialError
from asi_lab.protocol import Report, ScoreJob, TrialJob

Source = Literal["trial", "scorer"]
MAX_LINE = 4 * 2**20
LOG_TAIL = 4000

PASSED_ON = ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "CUDA_HOME")
"""All that a trial sees of the user's environment. Secrets are not among it."""

TO_SCORER = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HTTPS_PROXY", "https_proxy")
"""What the scorer sees besides: it may download the data of lm-eval's tasks, into the user's own cache."""


class MalformedReport(Exception):
    """A process wrote something that is not a report."""


class Process:
    """One of the two processes: its handle, its reports and its log."""

    def __init__(
        self, module: str, read_fd: int, write_fd: int, log: Path, home: Path, environment: dict[str, str]
    ) -> None:
        self.log = log
        self._buffer = bytearray()
        self.report_fd, report_write = os.pipe()
        os.set_blocking(self.report_fd, False)
        command = [sys.executable, "-u", "-m", module, "--report-fd", str(report_write)]
        command += ["--in-fd", str(read_fd), "--out-fd", str(write_fd)]
        with log.open("wb") as output:
            self.popen = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=(report_write, read_fd, write_fd),
                env=environment,
                cwd=home,
                start_new_session=True,
            )
        os.close(report_write)

    def give(self, job: TrialJob | ScoreJob) -> None:
        """Send the job; the process does nothing before it."""
        stdin = self._stdin()
        try:
            stdin.write(msgspec.json.encode(job) + b"\n")
            stdin.close()
        except BrokenPipeError:
            raise TrialError(f"A process died before it got its job.\n{self.log_tail()}") from None

    def _stdin(self) -> IO[bytes]:
        assert self.popen.stdin is not None
        return self.popen.stdin

    def read(self) -> list[Report]:
        """Reports that have arrived.

        Raises:
            MalformedReport: the bytes are no reports; candidate code can write to this pipe.
        """
        while True:
            try:
                data = os.read(self.report_fd, 65536)
            except BlockingIOError:
                break
            if not data:
                break
            self._buffer += data
        *lines, rest = self._buffer.split(b"\n")
        self._buffer = bytearray(rest)
        try:
            reports = [protocol.decoder.decode(line) for line in lines]
        except msgspec.MsgspecError as error:
            raise MalformedReport(f"wrote a malformed report: {error}") from None
        if len(rest) > MAX_LINE:
            raise MalformedReport("wrote a report without end")
        return reports

    def log_tail(self) -> str:
        """The end of what the process printed."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, self.log.stat().st_size - LOG_TAIL))
                return file.read(LOG_TAIL).decode("utf-8", "replace")
        except OSError:
            return ""

    def log_bytes(self) -> int:
        """Size of the log so far."""
        return self.log.stat().st_size if self.log.exists() else 0

    def resident_bytes(self) -> int:
        """Memory of the process and its children."""
        total = 0
        try:
            parent = psutil.Process(self.popen.pid)
            for process in [parent, *parent.children(recursive=True)]:
                total += process.memory_info().rss
        except psutil.Error:
            pass
        return total

    def kill(self) -> None:
        """End the whole process group at once and release what it held."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()
        self._stdin().close()
        os.close(self.report_fd)


class TrialPair(Protocol):
    """A trial and its scorer, wherever they run."""

    def start(self, trial: TrialJob, score: ScoreJob) -> None:
        """Give both their jobs."""

    def poll(self, seconds: float) -> list[tuple[Source, Report]]:
        """Wait up to `seconds` for reports of either process; `MalformedReport` for what is none."""

    def health(self) -> Health:
        """How the two are."""

    def said(self, source: Source) -> str:
        """The end of what one of them printed."""

    def finish(self, directory: Path) -> None:
        """End both at once and move their logs to `directory`."""


class Health(msgspec.Struct, frozen=True):
    """Exit statuses (None while alive), memory of the trial, what it has printed."""

    trial_exit: int | None
    scorer_exit: int | None
    trial_bytes: int
    printed_bytes: int


class Pair:
    """A trial and its scorer on this machine, joined by two pipes."""

    def __init__(self, directory: Path) -> None:
        """Start both in `directory`, where their logs go until they are moved with the job."""
        self.directory = directory
        to_trial, from_scorer = os.pipe()
        to_scorer, from_trial = os.pipe()
        bare = _environment(directory)
        trusted = bare | _of_user(TO_SCORER) | {"HF_HOME": _hugging_face_home()}
        self.trial = Process(
            "asi_lab.train.trial", to_trial, from_trial, directory / "trial.log", directory, bare
        )
        self.scorer = Process(
            "asi_lab.evaluate.scorer", to_scorer, from_scorer, directory / "scorer.log", directory, trusted
        )
        for descriptor in (to_trial, from_scorer, to_scorer, from_trial):
            os.close(descriptor)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self.trial.report_fd, selectors.EVENT_READ, "trial")
        self._selector.register(self.scorer.report_fd, selectors.EVENT_READ, "scorer")

    def start(self, trial: TrialJob, score: ScoreJob) -> None:
        """Give both their jobs."""
        self.trial.give(trial)
        self.scorer.give(score)

    def poll(self, seconds: float) -> list[tuple[Source, Report]]:
        """Wait up to `seconds` for reports of either process.

        Raises:
            MalformedReport: the trial wrote something that is not a report.
        """
        found: list[tuple[Source, Report]] = []
        deadline = time.monotonic() + seconds
        while not found and (left := deadline - time.monotonic()) > 0 and self._selector.get_map():
            for key, _ in self._selector.select(left):
                process = self.trial if key.data == "trial" else self.scorer
                reports = process.read()
                if not reports and process.popen.poll() is not None:
                    self._selector.unregister(key.fileobj)
                found += [(key.data, report) for report in reports]
        return found

    def health(self) -> Health:
        """How the two processes are."""
        return Health(
            trial_exit=self.trial.popen.poll(),
            scorer_exit=self.scorer.popen.poll(),
            trial_bytes=self.trial.resident_bytes(),
            printed_bytes=self.trial.log_bytes(),
        )

    def said(self, source: Source) -> str:
        """The end of what one of the processes printed."""
        return (self.trial if source == "trial" else self.scorer).log_tail()

    def finish(self, directory: Path) -> None:
        """End both processes and move their logs to `directory`."""
        self.kill()
        for process in (self.trial, self.scorer):
            if process.log.exists():
                shutil.move(process.log, directory / process.log.name)
        shutil.rmtree(self.directory, ignore_errors=True)

    def kill(self) -> None:
        """End both processes."""
        self._selector.close()
        self.trial.kill()
        self.scorer.kill()


class Executor(Protocol):
    """One trial slot, wherever it is."""

    def prepare(self) -> None:
        """Get the next pair ready, if none is."""

    def take(self) -> TrialPair:
        """A pair that waits for its job."""

    def close(self) -> None:
        """End what waits."""


class LocalExecutor:
    """One trial slot on this machine."""

    def __init__(self, directory: Path) -> None:
        """Waiting pairs live in `directory` until they get a job. What a killed engine left there goes."""
        self._root = directory
        shutil.rmtree(directory, ignore_errors=True)
        self._waiting: Pair | None = None

    def prepare(self) -> None:
        """Start the next pair, so that it has its imports behind it when it is needed."""
        if self._waiting is None:
            self._root.mkdir(parents=True, exist_ok=True)
            self._waiting = Pair(Path(tempfile.mkdtemp(prefix="next-", dir=self._root)))

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
            shutil.rmtree(self._waiting.directory, ignore_errors=True)
            self._waiting = None


def _of_user(names: Sequence[str]) -> dict[str, str]:
    return {name: os.environ[name] for name in names if name in os.environ}


def _hugging_face_home() -> str:
    """The cache that the user's other programs share."""
    return os.environ.get("HF_HOME") or str(Path.home() / ".cache" / "huggingface")


def _environment(home: Path) -> dict[str, str]:
    return _of_user(PASSED_ON) | {
        "HOME": str(home),
        "TMPDIR": str(home),
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
