"""How a running search is paused and ended: by signals, by commands, by its budget."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from types import FrameType

import msgspec

from asi_lab import commands
from asi_lab.commands import Command
from asi_lab.lab import Lab
from asi_lab.records import CandidateState
from asi_lab.store import Store


class StopNow(Exception):
    """The running trial is to be cut off; it starts again with the next search."""


def release(store: Store, candidate_id: int | None) -> str:
    """Let a suspect candidate in after all: it is scored next. Returns what came of it, in words."""
    candidate = None if candidate_id is None else store.get(candidate_id)
    if candidate is None or candidate.state is not CandidateState.SUSPECT or candidate.evidence is None:
        state = "unknown" if candidate is None else candidate.state.value
        return f"not released: candidate {candidate_id} is {state}, and only suspect ones wait for release"
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

    `stopping` lets the running candidate finish, `stop_now` cuts it off. `signalled` is the number of
    the signal that asked, if one did.
    """

    def __init__(self, lab: Lab, store: Store, say: Callable[[str], None], hours: float | None) -> None:
        self.lab, self.store, self.say = lab, store, say
        self.deadline = None if hours is None else time.monotonic() + 3600 * hours
        self.paused = self.stopping = self.stop_now = False
        self.signalled: int | None = None

    def listen(self) -> None:
        """Take over the signals: the first SIGINT lets the candidate finish, all others cut it off.

        Commands that an earlier engine did not live to take are dropped: they were not meant for this one.
        """
        for path, command in commands.pending(self.lab.commands):
            name = command.action if command else path.name
            self.store.append_events(("warning", f"{name} came before this engine started; dropped", {}))
            path.unlink(missing_ok=True)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.stop_now = self.stopping or number != signal.SIGINT
        self.stopping, self.signalled = True, number
        if not self.stop_now:
            self.say("Ending after this candidate. Ctrl+C again cuts it off; it starts over next time.")

    def tick(self) -> None:
        """Take in new commands.

        Raises:
            StopNow: the running trial is to be cut off.
        """
        for path, command in commands.pending(self.lab.commands):
            if command is None:
                self.store.append_events(("warning", f"{path.name} holds no command; removed", {}))
            elif self.store.record_command(command.id, {"action": command.action, "time": command.time}):
                self._obey(command)
            path.unlink(missing_ok=True)
        if self.stop_now:
            raise StopNow

    def _obey(self, command: Command) -> None:
        answer = f"{command.action} taken"
        if command.action == "release":
            answer = release(self.store, command.candidate)
        elif command.action == "pause":
            self.paused = True
        elif command.action == "resume":
            self.paused = False
        else:
            self.stopping = True
            self.stop_now = command.action == "stop_now"
        self.store.append_events(("command", answer, {"id": command.id}))

    def may_go_on(self, tick: Callable[[], None]) -> bool:
        """Whether another candidate may be started; waits while paused, calling `tick`, which ticks this.

        Raises:
            StopNow: the search is to end at once.
        """
        tick()
        while self.paused and not self.stopping:
            time.sleep(0.2)
            tick()
        return not (self.stopping or (self.deadline is not None and time.monotonic() >= self.deadline))
