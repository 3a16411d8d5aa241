"""Orders to a running engine, as small files in the lab's `commands/`.

A viewer writes a file durably and atomically; the engine reads it, records its id once, acts and
removes it. So an order is carried out exactly once, whoever dies in between.
"""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from asi_lab.common import disk
from asi_lab.errors import DiskError

_MOST_BYTES = 1 << 16
Action = Literal[
    "pause",
    "resume",
    "stop",
    "stop_now",
    "release",
    "idea",
    "pin",
    "unpin",
    "ban",
    "unban",
    "rerun",
    "tag",
    "untag",
    "comment",
]


class Command(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One order. `time` is seconds since the epoch; `candidate` is what it is about, `text` an idea, tags or
    a comment."""

    id: Annotated[str, Meta(pattern="^[0-9a-zA-Z-]{1,64}$")]
    action: Action
    time: float
    candidate: int | None = None
    text: str = ""


def new(action: Action, candidate: int | None = None, text: str = "") -> Command:
    """An order with an id of its own."""
    return Command(uuid.uuid4().hex, action, time.time(), candidate, text)


def send(directory: Path, action: Action, candidate: int | None = None, text: str = "") -> Command:
    """Leave an order for the engine, behind all that wait.

    Raises:
        DiskError: it cannot be written.
    """
    command = new(action, candidate, text)
    last = max((_number(path) for path in _files(directory)), default=0)
    name = f"{max(time.time_ns(), last + 1):020d}-{command.id}.json"  # the clock may have been set back
    try:
        directory.mkdir(parents=True, exist_ok=True)
        disk.write(directory / name, msgspec.json.encode(command))
    except OSError as error:
        raise DiskError(f"The order was not given. {disk.explain(error, directory)}") from None
    return command


def pending(directory: Path) -> list[tuple[Path, Command | None]]:
    """Orders that wait, oldest first; None for a file that is no order."""
    found: list[tuple[Path, Command | None]] = []
    for path in _files(directory):
        try:
            with path.open("rb") as file:
                found.append((path, msgspec.json.decode(file.read(_MOST_BYTES), type=Command)))
        except (OSError, msgspec.MsgspecError):
            found.append((path, None))
    return found


def _files(directory: Path) -> list[Path]:
    """Files with the name of an order. What is no plain file (a folder, a pipe) is none."""
    return sorted(path for path in directory.glob("*.json") if path.is_file())


def _number(path: Path) -> int:
    digits = path.name.split("-")[0]
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) == 20 else 0
