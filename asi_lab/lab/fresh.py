"""Promotions and fresh runs in the store: what claims are made of, apart from what the search chose by."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import msgspec

from asi_lab.errors import StoreError
from asi_lab.events import NewEvent
from asi_lab.lab import meta
from asi_lab.lab.codec import DAMAGED
from asi_lab.lab.directory import run_label
from asi_lab.lab.store import Store
from asi_lab.records import FreshRun, Promoted, Promotion, Run, Terms

RUNS, CUTS = "fresh/", "fresh-cut/"


def label(run: Run) -> str:
    """The name of a fresh run's trial: of its folder and of its series."""
    return run_label(*run, kind="fresh")


def runs(store: Store) -> list[FreshRun]:
    """All fresh runs that have ended.

    Raises:
        StoreError: something else is recorded as one.
    """
    try:
        found = [msgspec.convert(value, FreshRun) for value in store.metas(RUNS).values()]
    except msgspec.ValidationError as error:
        raise StoreError(f"{RUNS} in the store holds something else ({error}): {DAMAGED}") from None
    for run in found:
        evaluation = run.evidence.evaluation
        if not run.failure and (evaluation is None or not math.isfinite(evaluation.loss)):
            raise StoreError(f"the fresh run {run.run.words} has no loss: {DAMAGED}")
    return sorted(found, key=lambda run: (run.who, run.rate, run.index))


def keep(store: Store, run: FreshRun, *events: NewEvent) -> None:
    """Record a run that has ended. A run counts once: one that is there already stays."""
    key = f"{RUNS}{label(run.run)}"
    if store.get_meta(key) is None:
        store.put_meta(key, msgspec.to_builtins(run), *events)


def cut_off(store: Store, run: Run, *events: NewEvent) -> int:
    """Count that a run came to an end that the machine may be to blame for; returns how often it has."""
    key = f"{CUTS}{label(run)}"
    count = int(store.get_meta(key, 0)) + 1
    store.put_meta(key, count, *events)
    return count


def promotions(store: Store) -> tuple[Promotion, ...]:
    """All promotions, in order."""
    known = meta.PROMOTED.read(store)
    return known.promotions if known else ()


def promote(store: Store, terms: Terms, candidates: Sequence[int]) -> list[int]:
    """Promote candidates in this order, those that are not yet, all of them in one transaction; returns who
    was. `terms` are fixed by the first promotion."""
    known = meta.PROMOTED.read(store) or Promoted(terms, ())
    have = {one.candidate for one in known.promotions}
    new = [candidate for candidate in dict.fromkeys(candidates) if candidate not in have]
    if new:
        first, now = len(known.promotions) + 1, time.time()
        added = (Promotion(number, who, now) for number, who in enumerate(new, start=first))
        grown = msgspec.structs.replace(known, promotions=(*known.promotions, *added))
        meta.PROMOTED.write(store, grown)
    return new
