"""The draw of a candidate: parent and references from the pool, steered by standstill and by people.

    pool -> rank among the best -> further away while the search stands still -> pinned and banned ones

A control that is kept apart draws otherwise (`arms`), and nobody steers it. A draw is a function of the
candidate's id, of finished records and of what people have ordered.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from asi_lab.events import NewEvent
from asi_lab.lab.steering import Steering
from asi_lab.records import Arm, Draw, PoolEntry
from asi_lab.researcher import arms, pool, stagnation
from asi_lab.researcher.stagnation import Likeness
from asi_lab.settings import Settings


def draw(
    candidate_id: int,
    arm: Arm,
    entries: Sequence[PoolEntry],
    orders: Steering,
    settings: Settings,
    behind: int,
    likeness: Likeness,
) -> Draw:
    """Parent and references for a candidate, from further away the longer the search stands still.

    `entries` are all finished candidates. The draw does not count on the `behind` candidates before its own:
    they may be under way.
    """
    search, seed = settings.search, settings.seed
    if arm.is_apart:
        return arms.draw(arm, candidate_id - 1 - behind, entries, orders.banned)
    mine, last = arms.of(arm, entries), candidate_id - 1 - behind
    drawn = pool.draw(candidate_id, mine, search, seed, behind, orders.banned)
    step = stagnation.standstill(last, mine, search).step
    known = [e.id for e in mine if e.id <= last and e.id not in orders.banned]
    drawn = stagnation.escalated(drawn, step, candidate_id, known, likeness, seed)
    return msgspec.structs.replace(steered(orders, drawn, entries), arm=arm)


def steered(orders: Steering, drawn: Draw, entries: Sequence[PoolEntry]) -> Draw:
    """The draw with its parent replaced by the pinned one. Its rank is 0, which says that it was not drawn by
    rank."""
    if orders.pinned is None or all(entry.id != orders.pinned for entry in entries):
        return drawn
    references = tuple(number for number in drawn.references if number != orders.pinned)
    return msgspec.structs.replace(drawn, parent=orders.pinned, parent_rank=0, references=references)


def news(
    candidate_id: int, entries: Sequence[PoolEntry], settings: Settings, behind: int
) -> Sequence[NewEvent]:
    """What is new in the search since the candidate before, whatever arm that is of: another pool, another
    step against standstill."""
    search, told = settings.search, list[NewEvent]()
    entries, last = arms.of(Arm.EVOLUTION, entries), candidate_id - 1 - behind
    generation = pool.generation_of(max(1, last + 1), search)
    if pool.generation_of(max(1, last), search) != generation:
        ids = [entry.id for entry in pool.members(generation, entries, search)]
        message = f"generation {generation}: {len(ids)} in the pool"
        told.append(("pool_updated", message, {"ids": ids}))
    found = stagnation.standstill(last, entries, search)
    if found.step != stagnation.standstill(last - 1, entries, search).step:
        told.append(("standstill", found.words, {"step": found.step}))
    return told
