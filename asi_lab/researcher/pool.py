"""The candidate pool and the two-level draw (paper, section 2.2 and A.1).

Pool generation k holds the best of the candidates with ids up to `boundary(k)`, and is only used
once all of them have ended. So a draw is a function of the candidate's id and of finished records:
a search that was killed and resumed draws what it would have drawn. Best is what is worth most given all
their runs (`lineage_prior`), not what one lucky run gave.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from asi_lab.common.randomness import keyed_random
from asi_lab.records import Draw, PoolEntry
from asi_lab.scoring import lineage_prior
from asi_lab.settings import Search


def generation_of(candidate_id: int, search: Search) -> int:
    """The pool generation from which candidate `candidate_id` (1, 2, ...) is drawn."""
    if candidate_id <= search.cold_start:
        return 0
    return 1 + (candidate_id - search.cold_start - 1) // search.update_every


def boundary(generation: int, search: Search) -> int:
    """Largest candidate id that may be in the pool of a generation; 0 is the seed alone."""
    return 0 if generation == 0 else search.cold_start + (generation - 1) * search.update_every


def members(
    generation: int, entries: Sequence[PoolEntry], search: Search, banned: Collection[int] = ()
) -> list[PoolEntry]:
    """The pool of a generation without the `banned`, best first; equal worth goes to the older candidate.

    The banned are still measured, so they count in what their relatives are worth.
    """
    last = boundary(generation, search)
    return ranked([entry for entry in entries if entry.id <= last], banned)[: search.pool]


def ranked(known: Sequence[PoolEntry], banned: Collection[int] = ()) -> list[PoolEntry]:
    """These candidates without the `banned`, by what all of them say that each is worth."""
    worth = lineage_prior.worth(known)
    eligible = [entry for entry in known if entry.id not in banned]
    return sorted(eligible, key=lambda entry: (-worth[entry.id], entry.id))


def draw(
    candidate_id: int,
    entries: Sequence[PoolEntry],
    search: Search,
    lab_seed: int,
    behind: int = 0,
    banned: Collection[int] = (),
) -> Draw:
    """Draw a parent from the best ranks and references from the ranks below.

    `entries` are all finished candidates, the seed among them. While the pool is small there may be
    fewer references than wanted, or none; the draw says how many were. Where candidates are proposed ahead,
    the pool is that of the candidate `behind` places before, all of which has ended by then.
    """
    generation = generation_of(max(1, candidate_id - behind), search)
    pool = members(generation, entries, search, banned)
    rng = keyed_random(lab_seed, candidate_id, "draw")
    rank = rng.randrange(min(search.parent_ranks, len(pool)))
    below = pool[search.parent_ranks :]
    chosen = rng.sample(below, min(search.references, len(below)))
    return Draw(
        generation=generation,
        parent=pool[rank].id,
        parent_rank=rank + 1,
        references=tuple(entry.id for entry in chosen),
        references_wanted=search.references,
    )
