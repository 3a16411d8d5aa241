"""Promotions and fresh runs in the store: what claims are made of, apart from what the search chose by.

A `rung` is the scale of the claims, empty for the lab's own.
"""

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


def label(run: Run, rung: str = "") -> str:
    """The name of a fresh run's trial: of its folder and of its series."""
    return run_label(*run, kind=f"{rung}-fresh" if rung else "fresh")


def runs(store: Store, rung: str = "") -> list[FreshRun]:
    """All fresh runs at a scale that have ended.

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
    here = (run for run in found if run.rung == rung)
    return sorted(here, key=lambda run: (run.who, run.rate, run.index))


def keep(store: Store, run: FreshRun, *events: NewEvent) -> None:
    """Record a run that has ended. A run counts once: one that is there already stays."""
    key = f"{RUNS}{label(run.run, run.rung)}"
    if store.get_meta(key) is None:
        store.put_meta(key, msgspec.to_builtins(run), *events)


def cut_off(store: Store, run: Run, rung: str, *events: NewEvent) -> int:
    """Count that a run came to an end that the machine may be to blame for; returns how often it has."""
    key = f"{CUTS}{label(run, rung)}"
    count = int(store.get_meta(key, 0)) + 1
    store.put_meta(key, count, *events)
    return count


def rungs(store: Store) -> list[str]:
    """The scales beyond the lab's own at which candidates were promoted."""
    return [key.partition("/")[2] for key in store.metas(f"{meta.CLAIMS}/")]


def promotions(store: Store, rung: str = "") -> tuple[Promotion, ...]:
    """All promotions at a scale, in order."""
    known = meta.promoted(rung).read(store)
    return known.promotions if known else ()


def promote(
    store: Store, rung: str, terms: Terms, candidates: Sequence[int], drawn: Sequence[int] = ()
) -> list[int]:
    """Promote candidates at a scale in this order, those that are not yet, all of them in one transaction,
    and after them some that were `drawn` by lot; returns who was. `terms` are fixed by the first promotion.
    One that was drawn can be promoted later on its own account."""
    known = meta.promoted(rung).read(store) or Promoted(terms, ())
    claimed = {one.candidate for one in known.promotions if not one.drawn}
    wanted = [(who, False) for who in dict.fromkeys(candidates) if who not in claimed]
    have = {one.candidate for one in known.promotions} | {*candidates}
    wanted += [(who, True) for who in dict.fromkeys(drawn) if who not in have]
    if wanted:
        first, now = len(known.promotions) + 1, time.time()
        added = (Promotion(n, who, now, by_lot) for n, (who, by_lot) in enumerate(wanted, start=first))
        grown = msgspec.structs.replace(known, promotions=(*known.promotions, *added))
        meta.promoted(rung).write(store, grown)
    return [who for who, _ in wanted]
