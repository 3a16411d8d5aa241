"""Who does what: language models where the lab has them, else the grammar, the measured rubric and the table.

Where a model gives no usable answer, or cannot be had, the other one steps in for this candidate and the
lab's events say so: a night is never lost to a model.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping, Sequence

import msgspec

from asi_lab.analyst import ablation, prose, rubric, tags
from asi_lab.analyst import judge as panel
from asi_lab.common.randomness import keyed_random
from asi_lab.common.syntax import code_hash
from asi_lab.engineer import repair
from asi_lab.engineer.contract import faults
from asi_lab.errors import LabError
from asi_lab.events import EventKind, NewEvent
from asi_lab.knowledge.advice import Adviser
from asi_lab.lab import steering
from asi_lab.llm.ask import Asker, RoleFailed
from asi_lab.llm.model import ModelError
from asi_lab.llm.models import Models, Plan
from asi_lab.records import SEED_ID, Analysis, Candidate, Cognition, Draw, Judgement, Proposal, Repair
from asi_lab.researcher import context, grammar, novelty, planner, stagnation
from asi_lab.researcher.index import Index
from asi_lab.scoring import results
from asi_lab.scoring.archive import Archive
from asi_lab.scoring.baselines import Baselines
from asi_lab.scoring.results import NOTHING
from asi_lab.settings import Settings

LEAP = 3
"""Mutations in a row by which the grammar leaves a paradigm."""


def earlier(candidate: Candidate, archive: Archive) -> planner.Earlier:
    """A candidate beside its parent; the seed is its own."""
    return planner.Earlier(
        candidate, candidate if candidate.parent is None else archive.get(candidate.parent)
    )


class Roles:
    """The researcher, the engineer's hands and judge, and the analyst of one lab."""

    def __init__(
        self,
        settings: Settings,
        agents: Models,
        tell: Callable[[NewEvent], object],
        adviser: Adviser,
        imports: Mapping[int, Proposal],
    ) -> None:
        """`tell` records an event; `adviser` knows what the field does about weaknesses; `imports` are what
        the lab begins with, by candidate."""
        self.settings, self.agents, self.tell, self.adviser = settings, agents, tell, adviser
        self.imports = imports
        self._scaling = threading.Lock()  # several candidates may be judged at once

    def propose(
        self, candidate_id: int, draw: Draw, index: Index, known_code: Mapping[str, str], archive: Archive
    ) -> novelty.Proposed:
        """A new architecture: one that the lab begins with, or from the planner, or from the grammar."""
        search = self.settings.search
        until_new = functools.partial(
            novelty.propose, index=index, known_code=known_code, most_similar=search.duplicate_similarity
        )
        if (imported := self.imports.get(candidate_id)) is not None:
            return until_new(lambda attempt, repeated: imported, retries=0)
        if self.agents.plans(candidate_id):
            try:
                draft, repeats = self._planner(candidate_id, draw, archive)
                return until_new(draft, retries=self.settings.agents.plan_retries, repeats=repeats)
            except (RoleFailed, ModelError) as error:
                self._stand_in(candidate_id, "planner", "the grammar proposes it", error)
                steering.give_back(archive.store, candidate_id)

        parent = archive.get(draw.parent)
        cognitions = self._advice(candidate_id, parent, archive)
        hints = self.adviser.hints(cognitions)
        leads = [(cognition, hints[cognition.key]) for cognition in cognitions if cognition.key in hints]

        def draft_of_grammar(attempt: int, repeated: str) -> Proposal:
            rng = keyed_random(self.settings.seed, candidate_id, "propose", attempt)
            references = [archive.get(number) for number in draw.references]
            steps = LEAP if draw.step >= stagnation.PARADIGM else 1
            return grammar.propose(parent, references, rng, steps, leads)

        return until_new(draft_of_grammar, retries=search.novelty_retries)

    def _planner(
        self, candidate_id: int, draw: Draw, archive: Archive
    ) -> tuple[novelty.Draft, Callable[[Proposal], str]]:
        """How the planner drafts, and how the novelty judge looks at what it drafted. What the planner is
        told stays as it was when the plan was begun: its replies are taken up again after a kill."""
        ask, parent = self.agents.of(candidate_id), archive.get(draw.parent)
        plan = self.agents.begun(candidate_id)
        if plan is None:
            experience = self._experience(ask, candidate_id, draw, archive)
            idea = steering.taken(archive.store, candidate_id)
            cognitions = self._advice(candidate_id, parent, archive)
            insights = self.adviser.told(cognitions)
            told = context.values(self.settings, candidate_id, draw, archive, experience, insights, idea)
            plan = Plan(draw, told, cognitions)
            self.agents.begin(candidate_id, plan)
        begun, prompts = plan, self.agents.digests()

        def draft(attempt: int, repeated: str) -> Proposal:
            drafted = planner.plan(ask, parent, begun.told, repeated, prompts, faults)
            return msgspec.structs.replace(drafted, cognitions=begun.cognitions)

        def repeats(proposal: Proposal) -> str:
            near = [archive.get(neighbour.id) for neighbour in proposal.nearest]
            return planner.repeats(ask, parent, proposal, [earlier(c, archive) for c in near])

        return draft, repeats

    def _advice(self, candidate_id: int, parent: Candidate, archive: Archive) -> tuple[Cognition, ...]:
        """What the cognition base has for the weaknesses of a parent: those that its analysis names, else
        where it stays behind Gated DeltaNet."""
        known: Sequence[str] = parent.analysis.weaknesses if parent.analysis else ()
        weaknesses = known or results.shortfalls(parent, archive.baselines)
        try:
            return self.adviser.advise(weaknesses)
        except LabError as error:
            words = f"candidate {candidate_id}: the cognition base is searched by words alone: {error}"
            self.tell(("warning", words, {"candidate": candidate_id}))
            return self.adviser.advise(weaknesses, without_model=True)

    def _experience(self, ask: Asker, candidate_id: int, draw: Draw, archive: Archive) -> str:
        references = [archive.get(number) for number in draw.references]
        relatives = [*reversed(archive.children(draw.parent)), *references]
        try:
            return prose.summarise(ask, archive.get(draw.parent), relatives, archive)
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

    def judge(self, candidate: Candidate, archive: Archive, reference_code: tuple[str, str]) -> Judgement:
        """The mark of an evaluated candidate. `reference_code` is that of DeltaNet and Gated DeltaNet."""
        known = archive.baselines
        assert candidate.proposal is not None
        assert candidate.evidence is not None
        timing = self.settings.judge.timing
        if self.agents.present:
            samples = self.settings.agents.judge_samples
            try:
                ask = self.agents.of(candidate.id)
                scale = self._scale(ask.model_of("judge"), known, reference_code)
                near = archive.near(candidate)
                return panel.judge(ask, candidate, near, known, scale, samples, timing=timing)
            except (RoleFailed, ModelError) as error:
                self._stand_in(candidate.id, "judge", "the measured rubric marks it", error)
        return rubric.judge(
            candidate.proposal, candidate.evidence, known.anchors(), reference_code, known.separated(), timing
        )

    def _scale(self, judge: str, known: Baselines, reference_code: tuple[str, str]) -> panel.Scale:
        """What a judge gives to the two references: asked once for each judge and wording of its prompt."""
        with self._scaling:
            if (found := self.agents.scale(judge)) is None:
                samples, timing = self.settings.agents.judge_samples, self.settings.judge.timing
                ask = self.agents.of(SEED_ID, judge)
                found = panel.scale(ask, reference_code, known, samples, timing=timing)
                words = f"judge {judge}: DeltaNet gets {found.low:.2f}, Gated DeltaNet {found.high:.2f}"
                kind: EventKind = "note" if found.is_usable else "warning"
                usable = "" if found.is_usable else "; that is no scale, so its marks stay as they are"
                self.agents.keep_scale(judge, found, (kind, f"{words}{usable}", {"judge": judge}))
            return found

    def explain(self, candidate: Candidate, archive: Archive) -> Analysis:
        """The measured table, with the analyst's prose and the tags where there is a model."""
        assert candidate.parent is not None
        parent, known = archive.get(candidate.parent), archive.baselines
        siblings = archive.siblings(candidate)
        table = ablation.explain(candidate, parent, siblings, known, archive.near(candidate))
        if not self.agents.present:
            return table
        ask = self.agents.of(candidate.id)
        try:
            assert candidate.proposal is not None
            cited = self.adviser.cited(candidate.proposal.cognitions)
            table = prose.explain(ask, candidate, siblings, archive, table, cited)
        except (RoleFailed, ModelError) as error:
            self._stand_in(candidate.id, "analyst", "the table stands alone", error)
        return self._tagged(ask, candidate, parent, table) if self.settings.agents.tags else table

    def _tagged(self, ask: Asker, candidate: Candidate, parent: Candidate, analysis: Analysis) -> Analysis:
        """With the components of the layer, and the origin of a language model's idea."""
        assert candidate.proposal is not None
        try:
            found = tags.components(ask, candidate)
            analysis = msgspec.structs.replace(analysis, components=found)
            if candidate.proposal.model:
                plan = self.agents.begun(candidate.id)
                read = [plan.told[name] for name in ("experience", "references", "standings")] if plan else []
                known = "\n\n".join(text for text in read if text != NOTHING)
                cited = self.adviser.cited(candidate.proposal.cognitions)
                origin = tags.origin(ask, candidate, parent, cited, known)
                analysis = msgspec.structs.replace(analysis, origin=origin)
        except (RoleFailed, ModelError) as error:
            self._stand_in(candidate.id, "tagger", "some of its tags are missing", error)
        return analysis

    def _stand_in(self, candidate_id: int, role: str, words: str, error: Exception) -> None:
        """Tell that something else takes the place of a model."""
        data = {"role": role, "candidate": candidate_id}
        self.tell(("warning", f"candidate {candidate_id}: {role} failed, {words}: {error}", data))
