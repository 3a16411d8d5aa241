"""Time during which the engine was awake."""

from __future__ import annotations

import time

LONGEST_GAP = 2.0
"""Seconds between two looks at the clock beyond which the engine was stopped, or the machine slept."""


class Clock:
    """Counts the seconds since it was made, without those in which the engine could not look at it.

    Whoever waits or works for long looks often. What deadlines are judged by stands still while nobody could
    have met them: Ctrl+Z, a closed lid, a machine that swaps.
    """

    def __init__(self) -> None:
        self._begun = self._last = time.monotonic()
        self._away = 0.0

    def now(self) -> float:
        """Seconds since the clock was made, absences left out."""
        now = time.monotonic()
        if now - self._last > LONGEST_GAP:
            self._away += now - self._last
        self._last = now
        return now - self._begun - self._away
