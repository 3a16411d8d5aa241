"""The researcher: a new architecture from a draw (paper, section 2.2).

A language model plans where the lab has one and it is not the grammar's turn; else the grammar mutates the
parent. Where the planner gives no usable answer, or cannot be had, the grammar takes this candidate, and the
lab's events say so: a night is never lost to a model.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import msgspec

from asi_lab.common.randomness import keyed_random
from asi_lab.errors import LabError
from asi_lab.events import NewEvent
from asi_lab.knowledge.advice import Adviser
from asi_lab.lab import Store, steering
from asi_lab.lab.plans import Plan, Plans
from asi_lab.llm.ask import Asker, RoleFailed
from asi_lab.llm.model import ModelError
from asi_lab.llm.models import Models
from asi_lab.records import (
    RULES,
    Arm,
    Candidate,
    CandidateState,
    Cognition,
    Draw,
    Evidence,
    PoolEntry,
    Proposal,
)
from asi_lab.researcher import arms, context, experience, grammar, planner, stagnation
from asi_lab.researcher import draw as drawing
from asi_lab.researcher.novelty import Draft, Known, Proposed
from asi_lab.scoring import results
from asi_lab.scoring.archive import Archive
from asi_lab.settings import Settings

LEAP = 3
"""Mutations in a row by which the grammar leaves a paradigm."""


class Researcher:
    """Proposes the candidates of one lab. Any thread may call."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        models: Models,
        plans: Plans,
        adviser: Adviser,
        imports: Mapping[int, Proposal],
        inspect: Callable[[str], str],
    ) -> None:
        """`adviser` knows what the field does about weaknesses; `imports` are what the lab begins with, by
        candidate; `inspect` says what is wrong with a planner's code."""
        self.settings, self.store, self.models = settings, store, models
        self.plans, self.adviser = plans, adviser
        self.imports, self.inspect = imports, inspect
        self._known: dict[Arm, Known] = {}
        for arm in (Arm.EVOLUTION, Arm.BEST_OF_N, Arm.SEQUENTIAL):
            self._known[arm] = Known(store, settings.search.duplicate_similarity, arm)

    def known(self, arm: Arm | None) -> Known:
        """What a proposal of an arm must differ from."""
        return self._known[arm if arm and arm.is_apart else Arm.EVOLUTION]

    def draw(self, candidate_id: int, entries: Sequence[PoolEntry], behind: int) -> Draw:
        """Arm, parent and references for a candidate, as they were when its plan was begun. What the lab
        begins with is of no control. `entries` are all finished candidates."""
        if (drawn := self.plans.drawn(candidate_id)) is not None:
            return drawn
        arm = Arm.EVOLUTION if candidate_id in self.imports else arms.arm_of(candidate_id, self.settings)
        orders, likeness = steering.read(self.store), self.known(arm).index.likeness
        return drawing.draw(candidate_id, arm, entries, orders, self.settings, behind, likeness)

    def accept(
        self,
        candidate_id: int,
        created: float,
        drawn: Draw,
        proposed: Proposed,
        archive: Archive,
        behind: int,
    ) -> None:
        """Record a proposal after another comparison, since others may have been accepted meanwhile; one that
        repeats another ends as a duplicate. `created` is in seconds since the epoch; `archive` is that of all
        candidates."""
        known = self.known(drawn.arm)
        with known.accepting:
            proposed = known.compared(proposed)
            repeated, proposal = proposed.duplicate, proposed.proposal
            candidate = Candidate(
                id=candidate_id,
                state=CandidateState.DUPLICATE if repeated else CandidateState.PROPOSED,
                created=created,
                updated=time.time(),
                draw=drawn,
                proposal=proposal,
                evidence=Evidence(failure=CandidateState.DUPLICATE, error=repeated) if repeated else None,
                rules=RULES,
            )
            message = f"{proposal.name} from {drawn.parent} ({proposal.change})"
            references = list(drawn.references)
            data = {"generation": drawn.generation, "parent": drawn.parent, "references": references}
            if drawn.arm and drawn.arm.is_apart:
                message, data = f"{message}, arm {drawn.arm}", {**data, "arm": drawn.arm}
            event: NewEvent = ("candidate_proposed", message, data)
            news = drawing.news(candidate_id, archive.entries(), self.settings, behind)
            self.store.put(candidate, *news, event, vector=proposed.vector)
            known.add(candidate_id, proposed)

    def propose(self, candidate_id: int, draw: Draw, archive: Archive) -> Proposed:
        """A new architecture: one that the lab begins with, or from the planner, or from the grammar."""
        known = self.known(draw.arm)
        if (imported := self.imports.get(candidate_id)) is not None:
            return known.until_new(lambda attempt, repeated: imported, retries=0)
        if self.models.plans(draw.arm):
            try:
                draft, repeats = self._planner(candidate_id, draw, archive)
                return known.until_new(draft, self.settings.agents.plan_retries, repeats)
            except (RoleFailed, ModelError) as error:
                self.models.stand_in(candidate_id, "planner", "the grammar proposes it", error)
                steering.give_back(self.store, candidate_id)
        draft = self._grammar(candidate_id, draw, archive)
        return known.until_new(draft, self.settings.search.novelty_retries)

    def _grammar(self, candidate_id: int, draw: Draw, archive: Archive) -> Draft:
        """How the grammar drafts: one mutation of the parent, or several where it is to leave a paradigm."""
        parent = archive.get(draw.parent)
        cognitions = self._advice(candidate_id, parent, archive)
        hints = self.adviser.hints(cognitions)
        leads = [(cognition, hints[cognition.key]) for cognition in cognitions if cognition.key in hints]
        references = [archive.get(number) for number in draw.references]
        steps = LEAP if draw.step >= stagnation.PARADIGM else 1

        def draft(attempt: int, repeated: str) -> Proposal:
            rng = keyed_random(self.settings.seed, candidate_id, "propose", attempt)
            return grammar.propose(parent, references, rng, steps, leads)

        return draft

    def _planner(
        self, candidate_id: int, draw: Draw, archive: Archive
    ) -> tuple[Draft, Callable[[Proposal], str]]:
        """How the planner drafts, and how the novelty judge looks at what it drafted. What the planner is
        told stays as it was when the plan was begun: its replies are taken up again after a kill."""
        ask, parent = self.models.of(candidate_id), archive.get(draw.parent)
        plan = self.plans.begun(candidate_id) or self._begun(ask, candidate_id, draw, archive)
        prompts = self.models.digests()

        def draft(attempt: int, repeated: str) -> Proposal:
            drafted = planner.plan(ask, parent, plan.told, repeated, prompts, self.inspect)
            return msgspec.structs.replace(drafted, cognitions=plan.cognitions)

        def repeats(proposal: Proposal) -> str:
            near = [archive.get(neighbour.id) for neighbour in proposal.nearest]
            return planner.repeats(ask, parent, proposal, [_beside_parent(c, archive) for c in near])

        return draft, repeats

    def _begun(self, ask: Asker, candidate_id: int, draw: Draw, archive: Archive) -> Plan:
        """Gather what the planner of a candidate is told, and keep it."""
        learnt = self._experience(ask, candidate_id, draw, archive)
        is_apart = draw.arm is not None and draw.arm.is_apart
        idea = "" if is_apart else steering.taken(self.store, candidate_id)
        cognitions = self._advice(candidate_id, archive.get(draw.parent), archive)
        insights = self.adviser.told(cognitions)
        told = context.values(self.settings, candidate_id, draw, archive, learnt, insights, idea)
        plan = Plan(draw, told, cognitions)
        self.plans.begin(candidate_id, plan)
        return plan

    def _advice(self, candidate_id: int, parent: Candidate, archive: Archive) -> tuple[Cognition, ...]:
        """What the cognition base has for the weaknesses of a parent: those that its analysis names, else
        where it stays behind Gated DeltaNet."""
        known: Sequence[str] = parent.analysis.weaknesses if parent.analysis else ()
        weaknesses = known or results.shortfalls(parent, archive.baselines)
        try:
            return self.adviser.advise(weaknesses)
        except LabError as error:
            words = f"candidate {candidate_id}: the cognition base is searched by words alone: {error}"
            self.store.append_events(("warning", words, {"candidate": candidate_id}))
            return self.adviser.advise(weaknesses, without_model=True)

    def _experience(self, ask: Asker, candidate_id: int, draw: Draw, archive: Archive) -> str:
        """What was learnt from the parent, its children and the references; empty where no model says it."""
        references = [archive.get(number) for number in draw.references]
        relatives = [*reversed(archive.children(draw.parent)), *references]
        try:
            return experience.summarise(ask, archive.get(draw.parent), relatives, archive)
        except (RoleFailed, ModelError) as error:
            self.models.stand_in(candidate_id, "summariser", "the planner does without its summary", error)
            return ""


def _beside_parent(candidate: Candidate, archive: Archive) -> planner.Earlier:
    """A candidate with its parent; the seed is its own."""
    parent = candidate if candidate.parent is None else archive.get(candidate.parent)
    return planner.Earlier(candidate, parent)
