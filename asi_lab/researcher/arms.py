"""The arms of a lab: which candidate is of which, and what the controls draw.

    evolution     from the pool (`pool`), by a language model where the lab has one
    grammar       from the pool, by the grammar although there is a language model
    best_of_n     from the seed, whatever was found before
    sequential    from the best so far of its own arm, the seed at first

A control differs from evolution in one thing, so that the difference says what that thing adds: who
proposes, or what it proposes from. The last two share nothing with the pool: neither parents nor what
planners are told, nor what counts as a repetition. Like a draw, an arm is a function of the candidate's id.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from asi_lab.common.randomness import keyed_random
from asi_lab.lab.summary import Summary
from asi_lab.records import SEED_ID, Arm, Draw, PoolEntry, is_kin
from asi_lab.researcher import pool
from asi_lab.settings import Settings


def arm_of(candidate_id: int, settings: Settings) -> Arm:
    """The arm of a candidate that is yet to be drawn."""
    search, agents = settings.search, settings.agents
    place = keyed_random(settings.seed, candidate_id, "arm").random()
    for number, name in enumerate(search.controls, start=1):
        if place < number * search.control_share:
            return Arm(name)
    by_grammar = keyed_random(settings.seed, candidate_id, "control").random() < agents.control < 1
    return Arm.GRAMMAR if agents.any_model and by_grammar else Arm.EVOLUTION


def of(arm: Arm, entries: Sequence[PoolEntry]) -> list[PoolEntry]:
    """Those that candidates of an arm may be drawn from: the seed, and its own kin."""
    return [entry for entry in entries if entry.id == SEED_ID or is_kin(arm, entry.arm)]


def seen_from(arm: Arm | None) -> Callable[[Summary], bool]:
    """Which candidates those of an arm are told of: its own kin, and in best_of_n none but the seed, for each
    is as if it were the first."""
    return lambda summary: summary.id == SEED_ID or (arm is not Arm.BEST_OF_N and is_kin(arm, summary.arm))


def draw(arm: Arm, last: int, entries: Sequence[PoolEntry], banned: Collection[int] = ()) -> Draw:
    """The draw of a control that is apart: a parent without references. `entries` are all finished
    candidates; it counts on those up to `last`, and on the seed. Best is what the pool would rank first."""
    known = [entry for entry in of(arm, entries) if entry.id <= max(SEED_ID, last)]
    best = pool.ranked(known, banned)[0].id if arm is Arm.SEQUENTIAL else SEED_ID
    return Draw(generation=0, parent=best, parent_rank=1, references_wanted=0, arm=arm)
