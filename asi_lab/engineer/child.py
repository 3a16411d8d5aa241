"""One child process: its handle, its reports and its log."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import msgspec

from asi_lab import protocol
from asi_lab.common.process import bound_to_me
from asi_lab.engineer.usage import ProcessUsage, Tree
from asi_lab.protocol import MOST_LINE_BYTES, UNREADABLE, Report, ScoreJob, ServeJob, TrialJob
from asi_lab.protocol import Command as Order
from asi_lab.sandbox.command import ConfinedCommand

LOG_TAIL = 4000
GUARD_SECONDS = 15.0
"""How long a guard may take to end all that a trial has started."""


class MalformedReport(Exception):
    """A process wrote something that is not a report."""


class Process:
    """A trial or a scorer that was started with a pipe for its reports and a file for what it prints.

    Where it is `guarded`, the child is a guard that ends all descendants of the process when asked to.
    """

    def __init__(
        self,
        command: ConfinedCommand,
        inherited: Mapping[str, int],
        log: Path,
        cwd: Path,
        guarded: bool = False,
    ) -> None:
        """`command` ends where the options for the descriptors follow: that of reports, then `inherited`, the
        others by their options."""
        self.log = log
        self._guarded, self._is_over = guarded, False
        self._buffer = bytearray()
        self.report_fd, report_write = os.pipe()
        os.set_blocking(self.report_fd, False)
        ends = {"--report-fd": report_write, **inherited}
        options = [word for name, fd in ends.items() for word in (name, str(fd))]
        with log.open("wb") as output:
            self.popen = subprocess.Popen(
                bound_to_me([*command.argv, *options]),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=tuple(ends.values()),
                env=command.environment,
                cwd=cwd,
                start_new_session=True,
            )
        os.close(report_write)
        self._tree = Tree(self.popen.pid, cwd)

    def give(self, words: TrialJob | ServeJob | ScoreJob | Order) -> None:
        """Send a job, without which the process does nothing, or what it is to do next. One that has died
        does not get it, and is found dead."""
        with contextlib.suppress(BrokenPipeError):
            stdin = self._stdin()
            stdin.write(msgspec.json.encode(words) + b"\n")
            stdin.flush()

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
            if len(self._buffer) > MOST_LINE_BYTES:
                break
        *lines, rest = self._buffer.split(b"\n")
        self._buffer = bytearray(rest)
        try:
            reports = [protocol.decoder.decode(line) for line in lines]
        except UNREADABLE:  # whose messages quote what was read: language models read ours
            raise MalformedReport("wrote what is no report") from None
        if len(rest) > MOST_LINE_BYTES:
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

    def exit_status(self) -> int | None:
        """None while it runs, -n where signal n ended it: guards and bubblewrap pass that on as 128 + n."""
        code = self.popen.poll()
        return 128 - code if code is not None and code > 128 else code

    def usage(self) -> ProcessUsage:
        """What it uses with all that it has started. Once it has ended, only processor time is left, as of
        the last look."""
        return self._tree.last() if self._is_over else self._tree.look()

    def kill(self) -> None:
        """End it with all it has started, and release what it held. Killing it twice is harmless."""
        if self._is_over:
            return
        self._tree.look()
        self._is_over = True
        if self._guarded and self.popen.poll() is None:
            self.popen.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.popen.wait(GUARD_SECONDS)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()
        with contextlib.suppress(BrokenPipeError):  # of a job that it never read
            self._stdin().close()
        os.close(self.report_fd)
