"""The scorer's ears, which let the engine know that work goes on."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable
from typing import Any

from asi_lab.protocol import PULSE_SECONDS


class Pulse:
    """Calls `alive` every few seconds while this process works.

    It does so after something was heard, and from a thread while nothing is waited for. Whoever does not
    answer is met with silence, by which the engine knows it.
    """

    def __init__(self, alive: Callable[[], None]) -> None:
        self._alive, self._last = alive, time.monotonic()
        self.waits, self._over = False, threading.Event()
        threading.Thread(target=self._beat_on, daemon=True).start()

    def stop(self) -> None:
        """The work is over."""
        self._over.set()

    def beat(self) -> None:
        """Something was heard."""
        if time.monotonic() - self._last >= PULSE_SECONDS:
            self._last = time.monotonic()
            self._alive()

    def _beat_on(self) -> None:
        while not self._over.wait(PULSE_SECONDS):
            if not self.waits:
                self.beat()


class Listening(io.FileIO):
    """Reads from a descriptor, with a pulse that several share."""

    def __init__(self, descriptor: int, pulse: Pulse) -> None:
        super().__init__(descriptor, "rb")
        self._pulse = pulse

    def readinto(self, buffer: Any) -> int:
        """As any file does."""
        self._pulse.waits = True
        count = super().readinto(buffer)
        self._pulse.waits = False
        self._pulse.beat()
        return count
