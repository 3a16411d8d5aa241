"""How a running search is paused and ended: by signals, by commands, by its budget."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import msgspec

from asi_lab.common.background import StopNow
from asi_lab.common.clock import Clock
from asi_lab.common.text import plain
from asi_lab.events import NewEvent
from asi_lab.lab import Lab, Lineage, Store, commands, steering
from asi_lab.lab.commands import Command
from asi_lab.records import CandidateState

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_OWN = frozenset({"pause", "resume", "stop", "stop_now", "release"})
"""Orders about the engine itself, and the one that brings a candidate back on its way."""
_NAME = 100


def release(store: Store, candidate_id: int | None) -> str:
    """Let a suspect candidate in after all: it is scored next. Returns what came of it, in words."""
    candidate = None if candidate_id is None else store.get(candidate_id)
    if candidate is None or candidate.state is not CandidateState.SUSPECT or candidate.evidence is None:
        state = "unknown" if candidate is None else candidate.state.value
        return f"not released: candidate {candidate_id} is {state}, and only suspect ones wait for release"
    if candidate.commit is None:  # a thread is about to record its commit, over what is changed here
        return f"not released: candidate {candidate_id} is just being published; ask again in a moment"
    evidence = msgspec.structs.replace(candidate.evidence, failure=None, error="")
    released = msgspec.structs.replace(
        candidate,
        state=CandidateState.EVALUATED,
        updated=time.time(),
        evidence=evidence,
        commit=None,
        released=True,
    )
    message = f"{candidate.name}: released by hand"
    store.put(released, ("candidate_state", message, {"state": CandidateState.EVALUATED.value}))
    return f"candidate {candidate_id} is released and will be scored next"


class Control:
    """What the outside asks of the engine. `tick` is called a few times a second.

    `paused` says that no other candidate is to begin, `waits` that the next one does not begin for that.
    `stopping` lets the running candidate finish, `stop_now` cuts it off. `signalled` is the number of
    the signal that asked, if one did.
    """

    def __init__(self, lab: Lab, say: Callable[[str], None], hours: float | None) -> None:
        self.lab, self.say = lab, say
        self.store: Store | None = None
        self._clock, self._seconds = Clock(), None if hours is None else 3600 * hours
        self.paused = self.stopping = self.stop_now = False
        self.waits = False
        self.signalled: int | None = None
        self.lineage: Lineage | None = None
        self._stale = commands.pending(lab.commands)

    @property
    def until(self) -> float | None:
        """When the search is to end, in seconds since the epoch, if it is not stopped meanwhile; None where
        no hours were given."""
        return None if self._seconds is None else time.time() + self._seconds - self._clock.now()

    @property
    def ordered(self) -> str:
        """The order in force to pause or to end, by its action; empty where there is none."""
        if self.stopping:
            return "stop_now" if self.stop_now else "stop"
        return "pause" if self.paused else ""

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take over the signals: the first SIGINT lets the candidate finish, all others cut it off.

        SIGHUP stays ignored where it is: `nohup` means that the search outlives its terminal.
        """
        nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        heard = [number for number in _SIGNALS if not (nohup and number == signal.SIGHUP)]
        before = {number: signal.signal(number, self._on_signal) for number in heard}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def attend(self, store: Store) -> None:
        """From now on take commands, and record them in `store`.

        Commands that an earlier engine did not live to take are dropped: they were not meant for this one.
        """
        self.store = store
        names = [command.action if command else _shown(path) for path, command in self._stale]
        news: list[NewEvent] = [
            ("warning", f"{name} came before this engine started; dropped", {}) for name in names
        ]
        store.append_events(*news)
        for path, _ in self._stale:
            path.unlink(missing_ok=True)
        for partial in self.lab.commands.glob(".*.partial"):  # of a viewer that was killed while it wrote
            partial.unlink(missing_ok=True)

    def note_in(self, lineage: Lineage) -> None:
        """From now on keep notes in git too. Those that came before are there since it was opened."""
        self.lineage = lineage

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.stop_now = self.stopping or number != signal.SIGINT
        self.stopping, self.signalled = True, number
        if not self.stop_now:
            self.say("Ending after what is in trial now. Ctrl+C again cuts it off.")

    def tick(self) -> None:
        """Take in new commands.

        Raises:
            StopNow: the running trial is to be cut off.
        """
        self._clock.now()
        if self.store is not None:
            self._take_commands(self.store)
        if self.stop_now:
            raise StopNow

    def tick_unless_stopping(self) -> None:
        """As `tick`, for work before the first trial: it is cut off by any order to stop.

        Raises:
            StopNow: the search is to end.
        """
        if self.stopping:
            raise StopNow
        self.tick()

    def _take_commands(self, store: Store) -> None:
        for path, command in commands.pending(self.lab.commands):
            if command is None:
                store.append_events(("warning", f"{_shown(path)} holds no command; removed", {}))
            else:
                self._obey(store, command)
            path.unlink(missing_ok=True)

    def _obey(self, store: Store, command: Command) -> None:
        if command.action not in _OWN:
            changed = steering.obey(store, command)
            if changed and self.lineage is not None and command.candidate is not None:
                steering.publish(store, self.lineage, command.candidate)
            return
        if not store.record_command(command.id, {"action": command.action, "time": command.time}):
            return
        answer = f"{command.action} taken"
        if command.action == "release":
            answer = release(store, command.candidate)
        elif command.action == "pause":
            self.paused = True
        elif command.action == "resume":
            self.paused = False
        else:
            self.stopping = True
            self.stop_now |= command.action == "stop_now"
        store.append_events(("command", answer, {"id": command.id}))

    def hold(self, why: str) -> None:
        """Pause before the next candidate, until someone says resume."""
        self.paused = True
        if self.store is not None:
            self.store.append_events(("warning", why, {}))

    def may_go_on(self, tick: Callable[[], None]) -> bool:
        """Whether another candidate may be started; waits while paused, calling `tick`, which ticks this.

        Raises:
            StopNow: the search is to end at once.
        """
        tick()
        while self.paused and not self.stopping:
            self.waits = True
            time.sleep(0.2)
            tick()
        self.waits = False
        return not (self.stopping or (self._seconds is not None and self._clock.now() >= self._seconds))


def _shown(path: Path) -> str:
    """A file's name, which anyone may have given, as text that the store can hold."""
    return plain(path.name, limit=_NAME)
