"""When the best no longer get better: how far the search escalates, step by step.

After every `search.patience` candidates the mean of the highest fitnesses, as many as parents are drawn
from, is compared with the one before. If it has risen by no more than one run's noise, the search escalates
by one step (up to `FRESH`); otherwise it returns to step 0. The fitnesses are those of one run, as the noise
is: what the pool ranks by also moves when the lineage is fitted anew. Like the draw, the step is a function
of the candidate's id and of finished records.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean

import msgspec

from asi_lab.common.randomness import keyed_random
from asi_lab.records import SEED_ID, Draw, PoolEntry
from asi_lab.settings import Search

FAR, PARADIGM, FRESH = 1, 2, 3
WORDS = {
    0: "the draw is the usual one",
    FAR: "twice the references, of the ideas that are least like the parent's",
    PARADIGM: "beside that, a mechanism of another paradigm is asked for",
    FRESH: "beside that, every second candidate starts a fresh branch from the seed",
}


Likeness = Callable[[int, Sequence[int]], Sequence[float]]
"""How alike the ideas of some candidates are to that of one: a cosine for each."""


class Standstill(msgspec.Struct, frozen=True):
    """How far the search escalates: `step`, 0 not at all.

    `rise` is what the mean of the highest fitnesses gained over the last `search.patience` candidates,
    `noise` is the standard deviation of one run's there; both are 0 before there are two means to compare.
    """

    step: int = 0
    rise: float = 0.0
    noise: float = 0.0

    @property
    def words(self) -> str:
        """The step and its reason, for the lab's events."""
        return (
            f"step {self.step} of {FRESH} against standstill: the mean of the highest fitnesses rose by "
            f"{self.rise:+.4f}, the noise of one run is {self.noise:.4f}; from now on {WORDS[self.step]}"
        )


def standstill(last_id: int, entries: Sequence[PoolEntry], search: Search) -> Standstill:
    """How things stand once the candidates up to `last_id` have ended. `entries` are those with a fitness,
    the seed among them."""
    found, before = Standstill(), None
    if not search.patience:
        return found
    for boundary in range(search.cold_start, last_id + 1, search.patience):
        known = [entry for entry in entries if entry.id <= boundary]
        if len(known) < search.parent_ranks:
            continue
        first = sorted(known, key=lambda entry: (-entry.fitness, entry.id))[: search.parent_ranks]
        mean = fmean(entry.fitness for entry in first)
        if before is not None:
            noise = fmean(entry.noise for entry in first)
            stands = mean - before <= noise
            found = Standstill(min(found.step + 1, FRESH) if stands else 0, mean - before, noise)
        before = mean
    return found


def escalated(
    drawn: Draw, step: int, candidate_id: int, known: Sequence[int], like: Likeness, lab_seed: int
) -> Draw:
    """A draw after `step` steps against standstill (`stagnation`): twice the references, out of that half of
    the `known` finished candidates whose ideas are least like the parent's; at the last step every second
    parent is the seed, which has rank 0 then."""
    if not step:
        return drawn
    rng = keyed_random(lab_seed, candidate_id, "standstill")
    fresh = step >= FRESH and rng.random() < 0.5
    parent = SEED_ID if fresh else drawn.parent
    others = [number for number in known if number not in (SEED_ID, parent)]
    by_likeness = [number for _, number in sorted(zip(like(parent, others), others, strict=True))]
    far, wanted = by_likeness[: (len(others) + 1) // 2], 2 * drawn.references_wanted
    return msgspec.structs.replace(
        drawn,
        parent=parent,
        parent_rank=0 if fresh else drawn.parent_rank,
        references=tuple(rng.sample(far, min(wanted, len(far)))),
        references_wanted=wanted,
        step=step,
    )
