"""Who does what: language models where the lab has them, else the grammar, the measured rubric and the table.

Where a model gives no usable answer, or cannot be had, the other one steps in for this candidate and the
lab's events say so: a night is never lost to a model.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import msgspec

from asi_lab import analyst, researcher
from asi_lab.agents import Agents
from asi_lab.analyst import prose
from asi_lab.baselines import Anchor, Baselines
from asi_lab.engineer import judge as rubric
from asi_lab.engineer import panel, repair
from asi_lab.events import NewEvent
from asi_lab.llm.ask import Asker, RoleFailed
from asi_lab.llm.model import ModelError
from asi_lab.randomness import keyed_random
from asi_lab.records import Analysis, Candidate, Judgement, Proposal, Repair
from asi_lab.researcher import context, grammar, planner
from asi_lab.researcher.novelty import code_hash
from asi_lab.retrieval import Index
from asi_lab.settings import Settings


class Library(Protocol):
    """What the lab knows, as far as a planner is told."""

    @property
    def most_parameters(self) -> int:
        """The most that a candidate's whole model may have."""

    def standings(self) -> str:
        """What the baselines and the candidates so far have reached, as lines of text."""

    def get(self, candidate_id: int) -> Candidate:
        """The record of a candidate."""

    def children(self, parent: int) -> list[Candidate]:
        """Finished candidates of a parent."""

    def failures(self) -> list[Candidate]:
        """The latest candidates that failed, oldest first."""


class Roles:
    """The researcher, the engineer's hands and judge, and the analyst of one lab."""

    def __init__(self, settings: Settings, agents: Agents, tell: Callable[[NewEvent], object]) -> None:
        """`tell` records an event."""
        self.settings, self.agents, self.tell = settings, agents, tell

    def propose(
        self,
        candidate_id: int,
        parent: Candidate,
        references: Sequence[Candidate],
        index: Index,
        known_code: Mapping[str, str],
        library: Library,
    ) -> researcher.Proposed:
        """A new architecture, from the planner or from the grammar."""
        search = self.settings.search
        until_new = functools.partial(
            researcher.propose, index=index, known_code=known_code, most_similar=search.duplicate_similarity
        )
        if self.agents.plans(candidate_id):
            try:
                draft, repeats = self._planner(candidate_id, parent, references, library)
                return until_new(draft, retries=self.settings.agents.plan_retries, repeats=repeats)
            except (RoleFailed, ModelError) as error:
                self._stand_in(candidate_id, "planner", "the grammar proposes it", error)

        def draft_of_grammar(attempt: int, repeated: str) -> Proposal:
            rng = keyed_random(self.settings.seed, candidate_id, "propose", attempt)
            return grammar.propose(parent, references, rng)

        return until_new(draft_of_grammar, retries=search.novelty_retries)

    def _planner(
        self, candidate_id: int, parent: Candidate, references: Sequence[Candidate], library: Library
    ) -> tuple[researcher.Draft, Callable[[Proposal], str]]:
        """How the planner drafts, and how the novelty judge looks at what it drafted."""
        ask = self.agents.of(candidate_id)
        relatives = [*library.children(parent.id), *references]
        values = context.values(
            self.settings,
            parent,
            references,
            library.failures(),
            self._experience(ask, candidate_id, parent, relatives),
            library.most_parameters,
            library.standings(),
        )
        prompts = self.agents.digests()

        def draft(attempt: int, repeated: str) -> Proposal:
            return planner.plan(ask, parent, values, repeated, prompts)

        def repeats(proposal: Proposal) -> str:
            near = [library.get(neighbour.id) for neighbour in proposal.nearest]
            return planner.repeats(ask, proposal.motivation, near)

        return draft, repeats

    def _experience(
        self, ask: Asker, candidate_id: int, parent: Candidate, relatives: Sequence[Candidate]
    ) -> str:
        try:
            return prose.summarise(ask, parent, relatives)
        except (RoleFailed, ModelError) as error:
            self._stand_in(candidate_id, "summariser", "the planner does without its summary", error)
            return ""

    def repair(self, candidate: Candidate) -> tuple[Proposal, Repair] | None:
        """Changed code for a candidate that failed; None where it is not to be repaired any more."""
        by_model = candidate.proposal is not None and candidate.proposal.model != ""
        left = self.settings.agents.repairs - len(candidate.repairs)
        if not (self.agents.present and by_model and left > 0 and candidate.state in repair.ROLES):
            return None
        try:
            proposal, done = repair.repair(self.agents.of(candidate.id), candidate)
        except (RoleFailed, ModelError) as error:
            self._stand_in(candidate.id, repair.ROLES[candidate.state], "it is given up", error)
            return None
        return msgspec.structs.replace(proposal, code_hash=code_hash(proposal.code)), done

    def judge(
        self,
        candidate: Candidate,
        anchors: tuple[Anchor, Anchor],
        anchor_code: tuple[str, str],
        separated: bool,
    ) -> Judgement:
        """The mark of an evaluated candidate."""
        assert candidate.proposal is not None
        assert candidate.evidence is not None
        if self.agents.present:
            samples = self.settings.agents.judge_samples
            try:
                ask = self.agents.of(candidate.id)
                return panel.judge(ask, candidate.proposal, candidate.evidence, anchors, samples)
            except (RoleFailed, ModelError) as error:
                self._stand_in(candidate.id, "judge", "the measured rubric marks it", error)
        timing = self.settings.judge.timing
        return rubric.judge(candidate.proposal, candidate.evidence, anchors, anchor_code, separated, timing)

    def explain(
        self, candidate: Candidate, parent: Candidate, siblings: Sequence[Candidate], baselines: Baselines
    ) -> Analysis:
        """The measured table, with the analyst's prose where there is a model."""
        table = analyst.explain(candidate, parent, siblings, baselines)
        if self.agents.present:
            try:
                return prose.explain(self.agents.of(candidate.id), candidate, parent, table, baselines)
            except (RoleFailed, ModelError) as error:
                self._stand_in(candidate.id, "analyst", "the table stands alone", error)
        return table

    def _stand_in(self, candidate_id: int, role: str, words: str, error: Exception) -> None:
        """Tell that something else takes the place of a model."""
        data = {"role": role, "candidate": candidate_id}
        self.tell(("warning", f"candidate {candidate_id}: {role} failed, {words}: {error}", data))
