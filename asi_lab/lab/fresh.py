"""Promotions and fresh runs in the store: what claims are made of, apart from what the search chose by."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import TypeVar

import msgspec

from asi_lab.errors import StoreError
from asi_lab.events import NewEvent
from asi_lab.lab.codec import DAMAGED
from asi_lab.lab.store import Store
from asi_lab.records import FreshRun, Promotion, Run

T = TypeVar("T", FreshRun, Promotion)

RUNS, PROMOTIONS = "fresh/", "promotion/"


def label(run: Run) -> str:
    """The name of a fresh run's trial: of its folder and of its series."""
    return f"{run.architecture}-fresh{run.seed_index}" + ("" if run.rate == 1.0 else f"-rate{run.rate:g}")


def runs(store: Store) -> list[FreshRun]:
    """All fresh runs that have ended.

    Raises:
        StoreError: something else is recorded as one.
    """
    found = _held(store, RUNS, FreshRun)
    return sorted(found, key=lambda run: (run.who, run.rate, run.index))


def promotions(store: Store) -> list[Promotion]:
    """All promotions, in order. Raises as `runs`."""
    return sorted(_held(store, PROMOTIONS, Promotion), key=lambda promotion: promotion.number)


def _held(store: Store, prefix: str, kind: type[T]) -> list[T]:
    try:
        return [msgspec.convert(value, kind) for value in store.metas(prefix).values()]
    except msgspec.ValidationError as error:
        raise StoreError(f"{prefix} in the store holds something else ({error}): {DAMAGED}") from None


def keep(store: Store, run: FreshRun, *events: NewEvent) -> None:
    """Record a run that has ended. A run counts once: one that is there already stays."""
    key = f"{RUNS}{label(run.run)}"
    if store.get_meta(key) is None:
        store.put_meta(key, msgspec.to_builtins(run), *events)


def promote(store: Store, candidates: Iterable[int]) -> list[Promotion]:
    """Promote candidates in this order, those that are not yet; returns the new promotions."""
    known = promotions(store)
    have, number, found = {one.candidate for one in known}, len(known), list[Promotion]()
    for candidate in dict.fromkeys(candidates):
        if candidate not in have:
            number += 1
            one = Promotion(number, candidate, time.time())
            news: Sequence[NewEvent] = [("note", f"{candidate:04d} is promoted, number {number}", {})]
            store.put_meta(f"{PROMOTIONS}{number:06d}", msgspec.to_builtins(one), *news)
            found.append(one)
    return found
