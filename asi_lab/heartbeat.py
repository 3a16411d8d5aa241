"""What the engine is doing now: shown to whoever looks on, and beaten into the store once a second."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from concurrent.futures import Future
from typing import Any, Literal, Protocol

import msgspec
from msgspec import UNSET

from asi_lab.common.background import StopNow
from asi_lab.control import Control
from asi_lab.errors import StoreError
from asi_lab.events import Doing, Heartbeat, NewEvent
from asi_lab.lab import Store, meta
from asi_lab.llm.live import LiveAnswers
from asi_lab.protocol import Progress

HEARTBEAT_SECONDS = 1.0

State = Literal["running", "paused", "stopped"]


class View(Protocol):
    """Whoever shows the search while it runs: the headless console, or nobody."""

    def say(self, text: str) -> None:
        """Print one line of narration."""

    def refresh(self, store: Store) -> None:
        """Show what is new in the store; called a few times a second."""

    def working(self, label: str, stage: str, progress: Progress | None) -> None:
        """A trial is at work, one of several perhaps; without a stage it is no longer."""


class Pacemaker:
    """The engine's `Watch`: polls commands, writes the heartbeat and refreshes the view while trials run. Any
    thread may call `working`, `over` and `follow`; only the main thread calls `tick` and `beat`."""

    def __init__(
        self,
        store: Store,
        control: Control,
        view: View,
        live: LiveAnswers,
        slots: int,
        experiments: int | None,
    ) -> None:
        """`live` are the answers of language models that arrive now; `slots` and `experiments` are told to
        viewers."""
        self.store, self.control, self.view = store, control, view
        self.live, self.slots, self.experiments = live, slots, experiments
        self.started = time.time()
        self._lock = threading.Lock()
        self._doing: dict[str, Doing] = {}  # by label, in the order in which they began
        self._over: set[str] = set()
        self._news: dict[tuple[str, str], Progress | None] = {}  # by label and stage, for the view
        self._followed: dict[Future[Any], bool] = {}  # and whether what it raises is heeded
        self._last, self._said = 0.0, ("", "")

    def working(self, label: str, stage: str, progress: Progress | None) -> None:
        """Note what is being done, for the heartbeat and the view."""
        with self._lock:
            self._over.discard(label)
            self._doing[label] = Doing(label, stage, progress)
            self._news.pop((label, stage), None)  # of several points the view is told the latest
            self._news[label, stage] = progress
            self._forget()
        if threading.current_thread() is threading.main_thread():
            self._show()

    def over(self, label: str) -> None:
        """Note that nothing is done about it any more. The last one is shown until another begins."""
        with self._lock:
            if label in self._doing:
                self._over.add(label)
            self._forget()

    def follow(self, work: Future[Any], *, heed: bool = False) -> None:
        """Count work that was begun in another thread as at work until it is done, and `heed` what it
        raises."""
        with self._lock:
            self._followed[work] = heed

    def _raise_heeded(self) -> None:
        with self._lock:
            ended = [work for work in self._followed if work.done()]
            heeded = [work for work in ended if self._followed.pop(work)]
        for work in heeded:
            work.result()

    def _forget(self) -> None:
        for label in [label for label in self._doing if label in self._over and len(self._doing) > 1]:
            del self._doing[label]
            self._over.discard(label)
            self._news[label, ""] = None

    def _show(self) -> None:
        with self._lock:
            news, self._news = self._news, {}
        for (label, stage), progress in news.items():
            self.view.working(label, stage, progress)

    @property
    def cut_off(self) -> bool:
        """Whether a signal asks for the end at once."""
        return self.control.stop_now

    def tick(self) -> None:
        """Obey commands, hear of work that has failed, then show and beat.

        Raises:
            StopNow: all is to end at once.
            Exception: whatever work that is heeded has raised.
        """
        try:
            self.control.tick()
        except StopNow:
            with contextlib.suppress(StoreError):
                self.beat("running")  # until all is cut off
            raise
        self._raise_heeded()
        self._show()
        self.view.refresh(self.store)
        state = self._state
        if (state, self.control.ordered) != self._said or self._is_due:
            self._said = state, self.control.ordered
            self.beat(state)

    @property
    def _is_due(self) -> bool:
        return time.monotonic() - self._last >= HEARTBEAT_SECONDS

    @property
    def _state(self) -> State:
        """It is paused once nothing is at work any more, neither a trial nor a model."""
        with self._lock:
            at_work = any(not work.done() for work in self._followed)
        return "paused" if self.control.waits and not at_work else "running"

    def beat(self, state: State, *events: NewEvent) -> None:
        """Tell viewers that the engine lives, and what it does."""
        self._last = time.monotonic()
        alive = state != "stopped"
        with self._lock:
            doing = list(self._doing.values()) if alive else []
        beat = Heartbeat(
            pid=os.getpid(),
            time=time.time(),
            state=state,
            experiments=self.experiments,
            started=self.started,
            until=self.control.until,
            ordered=self.control.ordered,
            talks=tuple(self.live.now()) if alive else (),
            beside=tuple(doing[1:]),
            slots=self.slots,
        )
        if doing:
            first = doing[0]
            beat = msgspec.structs.replace(
                beat, label=first.label, stage=first.stage, progress=first.progress or UNSET
            )
        meta.ENGINE.write(self.store, beat, *events)
