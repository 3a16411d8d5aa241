"""What was told to the user here, which stays to be read when it is no longer in view."""

from __future__ import annotations

import msgspec


class Notice(msgspec.Struct, frozen=True):
    """`severity` is information, warning or error; `time` is in seconds since the epoch."""

    time: float
    message: str
    severity: str
