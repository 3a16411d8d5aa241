"""The trials that go on at the same time: each in a thread of its own, on an executor of its own.

The main thread begins one wherever a slot is free, and waits. It alone obeys commands, beats and shows; what
a trial raises is raised there, and a stop ends all trials at once. A single slot needs no thread: the main
thread does its work.
"""

from __future__ import annotations

import contextlib
import copy
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future

from asi_lab.common import background
from asi_lab.common.background import StopNow
from asi_lab.engineer.executor import Executor
from asi_lab.events import Watch

CLOSE_SECONDS = 60.0
"""How long trials may take to end once they are stopped: a guard takes its time with a hostile one."""


class Slots:
    """As many runs at once as there are executors, each known by its label. The main thread's, but for
    `executor` and `heed`."""

    def __init__(self, executors: Sequence[Executor], watch: Watch) -> None:
        self._executors, self._watch = tuple(executors), watch
        self._others: list[Executor] = []
        self._free = deque(range(len(executors)))
        self._begun: dict[str, Future[None]] = {}
        self._stopped = threading.Event()
        self.seconds: dict[str, float] = {}
        """How long which runs took, by label."""

    def at(self, executors: Sequence[Executor]) -> Slots:
        """The same slots with other executors, one for each: those of another scale. They are closed with
        these."""
        slots = copy.copy(self)
        slots._executors = tuple(executors)
        self._others += executors
        return slots

    @property
    def count(self) -> int:
        """How many slots there are."""
        return len(self._executors)

    @property
    def has_room(self) -> bool:
        """Whether a slot is free."""
        return len(self._begun) < self.count

    @property
    def begun(self) -> list[Future[None]]:
        """What was begun and has not settled."""
        return list(self._begun.values())

    def is_at_work(self, label: str) -> bool:
        """Whether a run of that label was begun and has not settled."""
        return label in self._begun

    def begin(self, label: str, work: Callable[[], object]) -> None:
        """Do `work` in a slot, once one is free. With a single slot it is done when this returns."""

        def run() -> None:
            began = time.monotonic()
            try:
                work()
            finally:
                self.seconds[label] = time.monotonic() - began
                self._watch.over(label)

        if self.count == 1:
            run()
            return
        self.wait_for_room()
        self._begun[label] = begun = background.begin(run, f"trial {label}")
        self._watch.follow(begun, heed=True)

    def settle(self) -> None:
        """Free the slots of runs that have ended. What one raised is raised here."""
        for label in [label for label, done in self._begun.items() if done.done()]:
            self._begun.pop(label).result()

    def wait_for_room(self) -> None:
        """Wait until a slot is free."""
        while not self.has_room:
            self.wait_for_one()

    def wait(self) -> None:
        """Wait until all slots are free."""
        while self._begun:
            self.wait_for_one()

    def wait_for_one(self) -> None:
        """Wait until one of those that were begun has ended."""
        background.wait_for_one(self.begun, self._watch.tick)
        self.settle()

    @contextlib.contextmanager
    def executor(self) -> Iterator[Executor]:
        """An executor that no other run has, for a run to use while it goes on."""
        place = self._free.popleft()
        try:
            yield self._executors[place]
        finally:
            self._free.append(place)

    def heed(self) -> None:
        """Called by the runs a few times a second.

        Raises:
            StopNow: all runs are to end at once.
        """
        if threading.current_thread() is threading.main_thread():
            self._watch.tick()
        elif self._stopped.is_set() or self._watch.cut_off:
            raise StopNow

    def prepare(self) -> None:
        """Get a pair ready for every slot."""
        for executor in self._executors:
            executor.prepare()

    def stop(self) -> None:
        """Have all runs cut off; what they raise is of no interest any more."""
        self._stopped.set()

    def close(self) -> None:
        """Cut off all runs, wait for their ends and close the executors."""
        self.stop()
        deadline = time.monotonic() + CLOSE_SECONDS
        for done in self._begun.values():
            with contextlib.suppress(BaseException):
                done.result(max(0.0, deadline - time.monotonic()))
        for executor in (*self._executors, *self._others):
            executor.close()
