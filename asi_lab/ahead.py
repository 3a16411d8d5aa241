"""Proposals made ahead: while one candidate is on trial, models think about the next ones in threads.

The queue is bounded by how many candidates may be ahead. What a thread gives is recorded by the thread
itself, under its own id, so a proposal that was paid for survives a kill.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet

TICK_SECONDS = 0.2


class Ahead:
    """Runs `propose` for candidates in daemon threads, one for each of them."""

    def __init__(self, propose: Callable[[int], object]) -> None:
        self._propose = propose
        self._begun: dict[int, Future[None]] = {}

    def want(self, candidate_ids: Iterable[int]) -> None:
        """Begin those that were not begun yet."""
        for number in candidate_ids:
            if number not in self._begun:
                self._begun[number] = Future()
                threading.Thread(target=self._run, args=(number,), daemon=True, name="planner").start()

    def wait(self, candidate_id: int, tick: Callable[[], None]) -> None:
        """Wait for one of them, calling `tick`, which may raise. What `propose` raised is raised here."""
        self.want([candidate_id])
        while True:
            try:
                return self._begun[candidate_id].result(TICK_SECONDS)
            except NotYet:
                if self._begun[candidate_id].done():
                    raise
                tick()

    def _run(self, number: int) -> None:
        try:
            self._propose(number)
        except BaseException as error:
            self._begun[number].set_exception(error)
        else:
            self._begun[number].set_result(None)
