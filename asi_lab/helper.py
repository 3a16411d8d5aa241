"""Work of the engine that is done in a process of its own, since it imports what the engine does not."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys

from asi_lab.common.process import die_with_parent
from asi_lab.control import Control, StopNow
from asi_lab.errors import DataError

TICK_SECONDS = 0.2


def run_helper(module: str, arguments: list[str], control: Control) -> list[str]:
    """Run a module of ours in a process of its own, which ends with this one; returns what it printed.

    Raises:
        StopNow: the search is to end; the process was ended.
        DataError: it failed, with what it said.
    """
    with subprocess.Popen(
        [sys.executable, "-P", "-m", module, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl+C is for the engine
        preexec_fn=die_with_parent,
    ) as process:
        while True:
            try:
                out, err = process.communicate(timeout=TICK_SECONDS)
                break
            except subprocess.TimeoutExpired:
                if control.stopping:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
                    raise StopNow from None
                control.tick()
    if process.returncode != 0:
        raise DataError(err.strip() or f"{module} ended with status {process.returncode}")
    return out.splitlines()
