"""Standard output and error, which may be closed, full, or read by nobody any more."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import IO

_GONE = frozenset({errno.EIO, errno.EPIPE, errno.EBADF, errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def prepare() -> None:
    """Make all three fit for use: a sign that a terminal lacks is shown as ?, and the number of one that is
    closed goes to no other file; writing to it fails as before."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            os.open(os.devnull, os.O_RDONLY)  # takes the lowest free number, which is this one
            stream = open(number, "r" if number == 0 else "w", encoding="utf-8", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)
        if isinstance(stream, io.TextIOWrapper) and number:
            stream.reconfigure(errors="replace")


def is_of_output(error: OSError) -> bool:
    """Whether an error is of writing to a terminal, pipe or file that was handed to us."""
    return error.errno in _GONE and error.filename is None


def mute(stream: IO[str]) -> None:
    """Let what is written to a stream, and what it still holds, go nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
