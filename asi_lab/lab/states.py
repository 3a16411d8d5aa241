"""A candidate's way from state to state, each step recorded in one transaction with its event."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from asi_lab.events import NewEvent
from asi_lab.lab.soundness import as_far_as_sound
from asi_lab.lab.store import Store
from asi_lab.records import Candidate, CandidateState, Evidence


class States:
    """Moves the candidates of one lab. Any thread may call; each candidate is moved by one at a time."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def advance(
        self, candidate: Candidate, state: CandidateState, news: NewEvent | None = None, **changes: Any
    ) -> Candidate:
        """Record that a candidate came to a state, with `changes` of other fields; returns the new record.
        By default an event is recorded only where the state changes."""
        moved = msgspec.structs.replace(candidate, state=state, updated=time.time(), **changes)
        if news is None and state is not candidate.state:
            news = ("candidate_state", f"{moved.name}: {state.value}", {"state": state.value})
        self._store.put(moved, *([news] if news else []))
        # A record that does not hold what its state says is kept as far as it does: its trial begins again.
        sound, wrong = as_far_as_sound(moved)
        return (
            msgspec.structs.replace(sound, starts=sound.starts + 1, cuts=sound.cuts + 1) if wrong else moved
        )

    def fail(self, candidate: Candidate, evidence: Evidence) -> Candidate:
        """Record that a candidate ended in the failure that its evidence holds."""
        assert evidence.failure is not None
        first_line = evidence.error.strip().splitlines()[-1] if evidence.error.strip() else ""
        ended = msgspec.structs.replace(
            candidate, state=evidence.failure, updated=time.time(), evidence=evidence
        )
        message = f"{ended.name}: {evidence.failure.value}: {first_line}"
        self._store.put(ended, ("candidate_state", message, {"state": evidence.failure.value}))
        return ended
