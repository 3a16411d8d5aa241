"""A candidate: the draw that it came from, its proposal, and the record that collects all."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

from asi_lab.records.appraisal import Analysis, Score
from asi_lab.records.evidence import CandidateState, Evaluation, Evidence

SEED_ID = 0
"""Candidate 0 is the seed architecture (DeltaNet), the root of the lineage."""

RULES = 3
"""How results come about: splits, scores, figures, commits. Results of other rules do not compare."""


class Arm(StrEnum):
    """How candidates come about, so that ways can be compared: two arms share the pool, and differ in who
    proposes; the others are controls that draw otherwise, and share nothing with anybody."""

    EVOLUTION = "evolution"
    GRAMMAR = "grammar"
    BEST_OF_N = "best_of_n"
    SEQUENTIAL = "sequential"

    @property
    def is_apart(self) -> bool:
        """Whether it is a control that draws otherwise than from the pool."""
        return self in (Arm.BEST_OF_N, Arm.SEQUENTIAL)


def is_kin(one: Arm | None, other: Arm | None) -> bool:
    """Whether the candidates of two arms may know of each other. Those without one came before there were
    arms, and are of the pool."""
    return one is other or not ((one and one.is_apart) or (other and other.is_apart))


class Draw(msgspec.Struct, frozen=True):
    """What the pool gave for one candidate, or for one of a control its seed or its own best.

    `references` may hold fewer than `references_wanted` ids while the pool is young. `step` is how far the
    search had escalated because it stood still (`stagnation`). A parent that was not drawn by rank has
    rank 0: the seed for that reason, or one that a person has pinned (`steering`). `arm` is the candidate's,
    None in records of before there were arms.
    """

    generation: int
    parent: int
    parent_rank: int
    references: tuple[int, ...] = ()
    references_wanted: int = 4
    step: int = 0
    arm: Arm | None = None


class Neighbour(msgspec.Struct, frozen=True):
    """A candidate with a similar motivation; `similarity` is a cosine in [-1, 1]."""

    id: int
    similarity: float


class Cognition(msgspec.Struct, frozen=True):
    """An insight of the cognition base that was retrieved for a weakness of the parent: the entry's key, the
    insight's title, how well it fits, and the weakness."""

    key: str
    insight: str
    score: float
    weakness: str


class Proposal(msgspec.Struct, frozen=True):
    """A new architecture: why, and the whole source of `architecture.py`.

    `researcher` and `model` say who wrote it. `genome` is the grammar's own description of the
    code, None for code that was not written by the grammar. `change` is the difference from the
    parent in a few words. `rejected` counts the near-duplicates thrown away before this proposal. `prompts`
    are those of a language model, by role: a hash of each. `cognitions` are the insights that a planner was
    handed, or that the grammar leaned to.
    """

    name: str
    motivation: str
    change: str
    code: str
    researcher: str
    model: str = ""
    genome: dict[str, Any] | None = None
    code_hash: str = ""
    nearest: tuple[Neighbour, ...] = ()
    rejected: int = 0
    prompts: dict[str, str] = {}
    cognitions: tuple[Cognition, ...] = ()


class Repair(msgspec.Struct, frozen=True):
    """One change of a candidate's code by the checker or the debugger: what was wrong before (`failure` and
    `error`), and what the model says it changed."""

    role: str
    model: str
    failure: CandidateState
    error: str
    changes: str


class Candidate(msgspec.Struct, frozen=True):
    """One architecture from draw to commit. Times are seconds since the epoch, UTC.

    `starts` counts how often its trial was cut off since it last got on, while the engine lived; `cuts`
    counts all of them, and `trial_seconds` is the wall time of its trials. `repairs` are the changes of its
    code since it was proposed; `released` says that a person let it in although its loss was suspect;
    `thorough` that it was compared with a fresh process at all positions, as who leads the lab must be.
    `rules` are those under which it was made.
    """

    id: int
    state: CandidateState
    created: float
    updated: float
    draw: Draw | None = None
    proposal: Proposal | None = None
    evidence: Evidence | None = None
    score: Score | None = None
    analysis: Analysis | None = None
    commit: str | None = None
    starts: int = 0
    released: bool = False
    repairs: tuple[Repair, ...] = ()
    cuts: int = 0
    trial_seconds: float = 0.0
    thorough: bool = False
    rules: int = 1

    @property
    def name(self) -> str:
        """The architecture's name, or a dash before it has one."""
        return self.proposal.name if self.proposal else "-"

    @property
    def parent(self) -> int | None:
        """Id of the parent architecture; None for the seed."""
        return self.draw.parent if self.draw else None

    @property
    def arm(self) -> Arm | None:
        """The arm that it is of; None for the seed, which all arms know."""
        return self.draw.arm if self.draw else None

    @property
    def ancestor(self) -> int:
        """Id of the parent architecture, of a candidate that has one: all but the seed."""
        assert self.draw is not None
        return self.draw.parent

    @property
    def proposed(self) -> Proposal:
        """The proposal, of a candidate that has one."""
        assert self.proposal is not None
        return self.proposal

    @property
    def code(self) -> str:
        """The source, of a candidate that was proposed."""
        return self.proposed.code

    @property
    def found(self) -> Evidence:
        """The evidence, of a candidate that was checked."""
        assert self.evidence is not None
        return self.evidence

    @property
    def measured(self) -> Evaluation:
        """The evaluation, of a candidate that was evaluated."""
        return self.found.measured

    @property
    def scored(self) -> Score:
        """The score, of a candidate that was judged."""
        assert self.score is not None
        return self.score

    @property
    def sha(self) -> str:
        """The commit, of a candidate that was published."""
        assert self.commit is not None
        return self.commit

    @property
    def loss(self) -> float | None:
        """Held-out loss in nats per token, once evaluated."""
        evaluation = self.evidence.evaluation if self.evidence else None
        return evaluation.loss if evaluation else None


class PoolEntry(msgspec.Struct, frozen=True):
    """A finished candidate as the pool sees it: `fitness` is its `merit`, the mean over `runs` runs, `noise`
    the sd of one run's, `parent` the id of its parent, None for the seed, and `arm` its arm."""

    id: int
    fitness: float
    noise: float = 0.0
    parent: int | None = None
    runs: int = 1
    arm: Arm | None = None
