"""The scorer's ear at the trial, which lets the engine know that work goes on."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable
from typing import Any

from asi_lab.protocol import PULSE_SECONDS


class Listening(io.FileIO):
    """Reads a trial's answers from a descriptor, and calls `alive` every few seconds meanwhile.

    It calls after an answer, and from a thread while nobody waits for one. A trial that does not answer is
    met with silence, by which the engine knows it.
    """

    def __init__(self, descriptor: int, alive: Callable[[], None]) -> None:
        super().__init__(descriptor, "rb")
        self._alive, self._last = alive, time.monotonic()
        self._waits, self._over = False, threading.Event()
        threading.Thread(target=self._beat_on, daemon=True).start()

    def readinto(self, buffer: Any) -> int:
        """As any file does."""
        self._waits = True
        count = super().readinto(buffer)
        self._waits = False
        self._beat()
        return count

    def close(self) -> None:
        """As any file does."""
        self._over.set()
        super().close()

    def _beat(self) -> None:
        if time.monotonic() - self._last >= PULSE_SECONDS:
            self._last = time.monotonic()
            self._alive()

    def _beat_on(self) -> None:
        while not self._over.wait(PULSE_SECONDS):
            if not self._waits:
                self._beat()
