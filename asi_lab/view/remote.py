"""What the commands need to look into a lab and to steer its engine from another process."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from asi_lab.errors import UsageError
from asi_lab.events import Event
from asi_lab.lab import Lab, Lineage, Store, commands, steering
from asi_lab.lab.commands import Action
from asi_lab.records import Candidate
from asi_lab.view import tables

ACKNOWLEDGE_SECONDS = 5.0
_MOST_DIGITS = 18


@contextmanager
def results(lab: Lab) -> Iterator[Store | None]:
    """The store for reading, None before an engine has made one."""
    if not lab.has_results():
        yield None
        return
    with Store.open_readonly(lab.store) as store:
        yield store


def find(lab: Lab, store: Store | None, which: str) -> Candidate:
    """The candidate of an id such as `42` or `0042`, or `best`: the one of the highest fitness.

    Raises:
        UsageError: `which` is neither, or there is no such candidate.
    """
    is_id = which.isascii() and which.isdigit() and len(which) <= _MOST_DIGITS
    if not is_id and which != "best":
        raise UsageError(f"expected a candidate's id such as 42, or best; found {which!r}.")
    found = None
    if store is not None:
        number = int(which) if is_id else store.best_id()
        found = None if number is None else store.get(number)
    if found is None:
        last = store.last_id() if store is not None else -1
        holds = f"holds candidates 0 to {last}" if last >= 0 else "holds no candidates yet"
        raise UsageError(f"expected a candidate of this lab; found {which}. {lab.path} {holds}.")
    return found


def engine_pid(lab: Lab) -> int:
    """The process id of the engine at work.

    Raises:
        UsageError: none is.
    """
    pid = lab.engine_pid()
    if pid is None:
        start = tables.command(lab, "--no-tui")
        raise UsageError(f"{lab.path}: expected an engine at work; none runs. Start one with: {start}")
    return pid


def order(lab: Lab, action: Action, candidate: int | None = None, text: str = "") -> Event | None:
    """Send an order to the engine and wait a little; returns its answer, None when it is still busy."""
    with results(lab) as store:
        seen = max((event.seq for event in store.last_events(1)), default=0) if store else 0
        command = commands.send(lab.commands, action, candidate, text)
        deadline = time.monotonic() + (ACKNOWLEDGE_SECONDS if store else 0.0)
        while store is not None and time.monotonic() < deadline:
            for event in store.events(seen):
                seen = event.seq
                if event.kind == "command" and event.data.get("id") == command.id:
                    return event
            time.sleep(0.1)
    return None


def steer(lab: Lab, action: Action, candidate: int | None = None, text: str = "") -> Event | None:
    """Give an order that steers the search (`asi_lab.lab.steering`): to the engine, or, where none is at
    work, by carrying it out here. Returns the answer, None when the engine is still busy.

    Raises:
        UsageError: there is no search yet.
    """
    if lab.engine_pid() is not None:
        return order(lab, action, candidate, text)
    if not lab.has_results():
        raise UsageError(
            f"{lab.path}: no search was made here yet. Start one: {tables.command(lab, '--no-tui')}"
        )
    command = commands.new(action, candidate, text)
    with lab.locked(), Store.open(lab.store, create=False) as store:
        if steering.obey(store, command) and candidate is not None and lab.lineage.exists():
            steering.publish(store, Lineage.open(lab.lineage), candidate)
        return store.last_events(1)[0]
