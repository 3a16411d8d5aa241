"""Orders to a running engine, as small files in the lab's `commands/`.

A viewer writes a file durably and atomically; the engine reads it, records its id once, acts and
removes it. So an order is carried out exactly once, whoever dies in between.
"""

from __future__ import annotations

import os
import time
import uuid
from pathlib import Path
from typing import Literal

import msgspec

Action = Literal["pause", "resume", "stop", "stop_now", "release"]


class Command(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One order. `time` is seconds since the epoch; `candidate` is what a release is about."""

    id: str
    action: Action
    time: float
    candidate: int | None = None


def send(directory: Path, action: Action, candidate: int | None = None) -> Command:
    """Leave an order for the engine."""
    command = Command(uuid.uuid4().hex, action, time.time(), candidate)
    directory.mkdir(parents=True, exist_ok=True)
    partial = directory / f".{command.id}.partial"
    with partial.open("wb") as file:
        file.write(msgspec.json.encode(command))
        file.flush()
        os.fsync(file.fileno())
    partial.replace(directory / f"{time.time_ns():020d}-{command.id}.json")
    return command


def pending(directory: Path) -> list[tuple[Path, Command | None]]:
    """Orders that wait, oldest first; None for a file that is no order."""
    found: list[tuple[Path, Command | None]] = []
    for path in sorted(directory.glob("*.json")) if directory.is_dir() else []:
        try:
            found.append((path, msgspec.json.decode(path.read_bytes(), type=Command)))
        except (OSError, msgspec.MsgspecError):
            found.append((path, None))
    return found
