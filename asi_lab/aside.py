"""Work beside the trial: models plan the next candidates, and judge and explain the last ones, in threads.

What a thread gives is recorded by the thread itself, under the candidate's id, so that nothing that was paid
for is lost by a kill. How many work at once is bounded by whoever begins them.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet

TICK_SECONDS = 0.2
SETTLE_SECONDS = 5.0


class Aside:
    """Runs `work` for candidates in daemon threads, one for each."""

    def __init__(self, work: Callable[[int], object], name: str) -> None:
        self._work, self._name = work, name
        self._begun: dict[int, Future[None]] = {}

    def begin(self, candidate_id: int) -> None:
        """Begin the work for a candidate, unless it was begun."""
        if candidate_id not in self._begun:
            self._begun[candidate_id] = Future()
            threading.Thread(target=self._run, args=(candidate_id,), daemon=True, name=self._name).start()

    def at_work(self, candidate_id: int) -> bool:
        """Whether the work for a candidate was begun and not waited for."""
        return candidate_id in self._begun

    def wait(self, tick: Callable[[], None], candidate_id: int | None = None, leave: int = 0) -> None:
        """Wait for a candidate, or for the oldest until only `leave` are at work, calling `tick`, which may
        raise. What the work raised is raised here."""
        while candidate_id is not None or len(self._begun) > leave:
            number = min(self._begun) if candidate_id is None else candidate_id
            self._wait(number, tick)
            del self._begun[number]
            if candidate_id is not None:
                return

    def settle(self) -> None:
        """Give what is at work a few seconds to end; what it raises is of no interest any more."""
        deadline = time.monotonic() + SETTLE_SECONDS
        for future in self._begun.values():
            with contextlib.suppress(BaseException):
                future.result(max(0.0, deadline - time.monotonic()))

    def _wait(self, number: int, tick: Callable[[], None]) -> None:
        while True:
            try:
                return self._begun[number].result(TICK_SECONDS)
            except NotYet:
                if self._begun[number].done():
                    raise
                tick()

    def _run(self, number: int) -> None:
        try:
            self._work(number)
        except BaseException as error:
            self._begun[number].set_exception(error)
        else:
            self._begun[number].set_result(None)
