"""Work in background threads, for which the main thread can wait while it goes on ticking."""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections.abc import Callable, Collection
from concurrent import futures
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from typing import Any, TypeVar

T = TypeVar("T")

TICK_SECONDS = 0.2
SETTLE_SECONDS = 5.0


def begin(work: Callable[[], T], name: str) -> Future[T]:
    """Do `work` in a daemon thread of that name."""
    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=run, daemon=True, name=name).start()
    return done


def wait(done: Future[T], tick: Callable[[], None]) -> T:
    """Wait for what was begun, calling `tick`, which may raise. What the work raised is raised here."""
    while True:
        try:
            return done.result(TICK_SECONDS)
        except NotYet:
            if done.done():
                raise
            tick()


def wait_for_one(begun: Collection[Future[Any]], tick: Callable[[], None]) -> None:
    """Wait until one of `begun` is done, calling `tick`, which may raise, at least once."""
    ended = False
    while not ended:
        ended = bool(futures.wait(begun, TICK_SECONDS, futures.FIRST_COMPLETED).done)
        tick()


class Background:
    """Runs `work` for candidates in daemon threads, one for each. Any thread may begin it; the main thread
    waits. How many work at once is bounded by whoever begins them."""

    def __init__(
        self,
        work: Callable[[int], object],
        name: str,
        follow: Callable[[Future[object]], object] = lambda begun: None,
    ) -> None:
        """`name` is that of the threads; `follow` is told of what was begun."""
        self._work, self._name, self._follow = work, name, follow
        self._begun: dict[int, Future[object]] = {}
        self._lock = threading.Lock()

    def begin(self, candidate_id: int) -> None:
        """Begin the work for a candidate, unless it was begun."""
        with self._lock:
            if candidate_id not in self._begun:
                begun = begin(functools.partial(self._work, candidate_id), self._name)
                self._begun[candidate_id] = begun
                self._follow(begun)

    def at_work(self, candidate_id: int) -> bool:
        """Whether the work for a candidate was begun and not waited for."""
        return candidate_id in self._begun

    @property
    def begun(self) -> list[Future[object]]:
        """What was begun and not waited for."""
        with self._lock:
            return list(self._begun.values())

    def settled(self) -> None:
        """Take those whose work is done as waited for. What it raised is raised here."""
        with self._lock:
            ended = [number for number, done in self._begun.items() if done.done()]
        for number in ended:
            self._begun.pop(number).result()

    def wait(self, tick: Callable[[], None], candidate_id: int | None = None) -> None:
        """Wait for a candidate, or for all, calling `tick`, which may raise. What the work raised is raised
        here."""
        for number in sorted(self._begun) if candidate_id is None else [candidate_id]:
            wait(self._begun[number], tick)
            del self._begun[number]

    def settle(self) -> None:
        """Give what is at work a few seconds to end; what it raises is of no interest any more."""
        deadline = time.monotonic() + SETTLE_SECONDS
        for future in self.begun:
            with contextlib.suppress(BaseException):
                future.result(max(0.0, deadline - time.monotonic()))


class StopNow(Exception):
    """The running trial is to be cut off; it starts again with the next search."""
