"""A candidate in a few numbers: what lists of thousands show without reading every record."""

from __future__ import annotations

import msgspec

from asi_lab.records import Arm, Candidate, CandidateState, merit

_NAME = 200


class Summary(msgspec.Struct, frozen=True, array_like=True):
    """What lists show of a candidate, kept beside its record. `name` is cut at 200 characters; `beyond` is
    that of the judgement."""

    id: int
    state: CandidateState
    name: str
    parent: int | None
    generation: int | None
    created: float
    updated: float
    fitness: float | None
    fitness_noise: float | None
    loss: float | None
    loss_noise: float | None
    benchmark_gain: float | None
    benchmark_noise: float | None
    judge: float | None
    params: int | None
    researcher: str
    code_hash: str
    commit: str | None
    model: str = ""
    fitness_spread: float | None = None
    beyond: float = 0.0
    arm: Arm | None = None

    @property
    def merit(self) -> float | None:
        """What candidates are ranked by, None before there is a score."""
        return None if self.fitness is None else merit(self.fitness, self.beyond)


def summarise(candidate: Candidate) -> Summary:
    """Return the summary of a record; the store keeps the two in step."""
    score, proposal, draw = candidate.score, candidate.proposal, candidate.draw
    training = candidate.evidence.training if candidate.evidence else None
    return Summary(
        id=candidate.id,
        state=candidate.state,
        name=candidate.name[:_NAME],
        parent=candidate.parent,
        generation=draw.generation if draw else None,
        created=candidate.created,
        updated=candidate.updated,
        fitness=score.fitness if score else None,
        fitness_noise=score.noise.fitness if score else None,
        loss=candidate.loss,
        loss_noise=score.noise.loss if score else None,
        benchmark_gain=score.benchmark_gain if score else None,
        benchmark_noise=score.noise.benchmark if score else None,
        judge=score.judgement.mark if score else None,
        params=training.params if training else None,
        researcher=proposal.researcher if proposal else "",
        code_hash=proposal.code_hash if proposal else "",
        commit=candidate.commit,
        model=proposal.model if proposal else "",
        fitness_spread=score.spread if score else None,
        beyond=score.judgement.beyond if score else 0.0,
        arm=candidate.arm,
    )
