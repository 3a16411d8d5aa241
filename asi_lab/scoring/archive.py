"""What the lab knows, as far as its roles are told. It reads the store and changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from asi_lab.lab import Store
from asi_lab.lab.summary import Summary
from asi_lab.records import SEED_ID, Candidate, CandidateState, PoolEntry
from asi_lab.scoring import results
from asi_lab.scoring.baselines import Baselines
from asi_lab.settings import BaselineSettings, Settings

LESSONS, BEST, LATEST, NEAR = 60, 5, 10, 2
"""Failed candidates, best ones, latest ones and those with a like idea that the roles are told of."""


def pool_entries(done: Sequence[Summary], settings: BaselineSettings) -> list[PoolEntry]:
    """Finished candidates as the pool sees them. The seed's fitness is the mean over the runs of record; that
    of all others is one run's, also where people ordered more (`asi_lab.lab.repeats`). Records without a
    spread of their own have the pooled noise."""
    return [
        PoolEntry(
            id=s.id,
            fitness=s.merit,
            noise=s.fitness_spread or s.fitness_noise or 0.0,
            parent=s.parent,
            runs=settings.seeds if s.id == SEED_ID else 1,
            arm=s.arm,
        )
        for s in done
        if s.merit is not None
    ]


class Archive:
    """The candidates and baselines of a lab at one moment. Results of the candidates in `concurrent`
    are hidden: they may have been training at the same time, and which of them has finished is chance. `sees`
    says which others are told of."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        baselines: Baselines,
        concurrent: Collection[int] = (),
        sees: Callable[[Summary], bool] = lambda summary: True,
    ) -> None:
        self.settings, self.store, self.baselines = settings, store, baselines
        self.concurrent, self.sees = concurrent, sees

    def get(self, candidate_id: int) -> Candidate:
        """The record of a candidate that is there."""
        return self.store.held(candidate_id)

    def entries(self) -> list[PoolEntry]:
        """All finished candidates with a fitness, the seed among them."""
        return pool_entries(self._done(), self.settings.baselines)

    def is_led_by(self, candidate: Candidate) -> bool:
        """Whether a scored candidate ranks above all others that are finished."""
        best = max((entry.fitness for entry in self.entries() if entry.id != candidate.id), default=0.0)
        return candidate.score is not None and candidate.score.merit > best

    def children(self, parent: int) -> list[Candidate]:
        """The finished candidates of a parent, in order of id."""
        return [self.get(s.id) for s in self._done() if s.parent == parent]

    def siblings(self, candidate: Candidate) -> list[Candidate]:
        """Earlier finished candidates of the same parent: the best few and the latest few, by id."""
        earlier = [c for c in self.children(candidate.ancestor) if c.id < candidate.id]
        best = sorted(earlier, key=lambda c: -(c.score.merit if c.score else 0.0))[:BEST]
        return sorted({c.id: c for c in (*best, *earlier[-LATEST:])}.values(), key=lambda c: c.id)

    def near(self, candidate: Candidate) -> list[Candidate]:
        """Finished candidates whose ideas were most like a candidate's when it was proposed."""
        done = {s.id for s in self._done()} - {SEED_ID}
        return [self.get(n.id) for n in candidate.proposed.nearest if n.id in done][:NEAR]

    def failures(self) -> list[Candidate]:
        """The latest candidates that failed, oldest first; duplicates do not count."""
        failed = [
            s.id for s in self._told() if s.state.is_failure and s.state is not CandidateState.DUPLICATE
        ]
        return [self.get(number) for number in failed[-LESSONS:]]

    def best(self, count: int = 1) -> list[Candidate]:
        """The candidates of the highest merit, best first; the seed is none."""
        ranked = sorted((e for e in self.entries() if e.id != SEED_ID), key=lambda e: (-e.fitness, e.id))
        return [self.get(entry.id) for entry in ranked[:count]]

    @property
    def most_parameters(self) -> int:
        """The most that a candidate's whole model may have."""
        return self.baselines.most_parameters(self.settings.limits.parameter_ratio)

    def standings(self) -> str:
        """The best candidates, the latest ones and those under way, a line each; empty without any."""
        latest = [self.get(s.id) for s in self._done() if s.id != SEED_ID][-LATEST:]
        under_way = [
            self.get(s.id) for s in self.store.summaries() if not s.state.is_terminal and self.sees(s)
        ]
        shown = {candidate.id: candidate for candidate in (*self.best(BEST), *latest, *under_way)}
        return "\n".join(
            f"- candidate {c.id} {c.name}, from {c.parent} ({c.proposal.change}): "
            f"{results.outcome(c, self.baselines)}"
            for c in shown.values()
            if c.proposal is not None
        )

    def _done(self) -> list[Summary]:
        return [s for s in self._told() if s.state is CandidateState.DONE]

    def _told(self) -> list[Summary]:
        return [s for s in self.store.summaries() if s.id not in self.concurrent and self.sees(s)]
