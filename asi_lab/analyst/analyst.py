"""The analyst: what a measured candidate is worth, and why (paper, sections 2.1 and 2.4).

A language model judges and explains where the lab has one. Where it has none, or its answers cannot be used,
the measured rubric judges and the ablation table explains, and the lab's events say so.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import msgspec

from asi_lab.analyst import ablation, judge, prose, rubric, tags
from asi_lab.analyst.judge import Scale
from asi_lab.events import EventKind
from asi_lab.lab import Store
from asi_lab.lab.meta import Key
from asi_lab.lab.plans import Plans
from asi_lab.llm.ask import Asker, RoleFailed
from asi_lab.llm.model import ModelError
from asi_lab.llm.models import Models
from asi_lab.records import SEED_ID, Analysis, Candidate, Cognition, Judgement
from asi_lab.scoring import references
from asi_lab.scoring.archive import Archive
from asi_lab.scoring.baselines import TITLES, Baselines
from asi_lab.scoring.results import NOTHING
from asi_lab.settings import Settings


class Analyst:
    """Judges and explains the candidates of one lab. Any thread may call."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        models: Models,
        plans: Plans,
        cite: Callable[[Sequence[Cognition]], str],
    ) -> None:
        """`cite` gives the insights of papers that a candidate rests on, a line each."""
        self.settings, self.store, self.models = settings, store, models
        self.plans, self.cite = plans, cite
        self._scaling = threading.Lock()  # several candidates may be judged at once

    def judge(self, candidate: Candidate, archive: Archive) -> Judgement:
        """The mark of an evaluated candidate, compared with what the archive holds."""
        known = archive.baselines
        if self.models.present:
            samples = self.settings.agents.judge_samples
            try:
                ask = self.models.of(candidate.id)
                scale = self._scale(ask.model_of("judge"), known)
                near = archive.near(candidate)
                return judge.judge(ask, candidate, near, known, scale, samples)
            except (RoleFailed, ModelError) as error:
                self.models.stand_in(candidate.id, "judge", "the measured rubric marks it", error)
        proposal, evidence = candidate.proposed, candidate.found
        both, separated = references.ends(known), known.separated()
        return rubric.judge(proposal, evidence, known.anchors(), both, separated)

    def _scale(self, name: str, known: Baselines) -> Scale:
        """What the judge of that name gives to the two references under the present wording of its prompt:
        asked once."""
        key = Key(f"scale/{self.models.prompts['judge'].digest}/{name}", Scale)
        with self._scaling:
            if (kept := key.read(self.store)) is not None:
                return kept
            ask = self.models.of(SEED_ID, name)
            found = judge.scale(ask, references.ends(known), known, self.settings.agents.judge_samples)
            words = f"judge {name}: DeltaNet gets {found.low:.2f}, {TITLES[known.top]} {found.high:.2f}"
            kind: EventKind = "note" if found.is_usable else "warning"
            usable = "" if found.is_usable else "; that is no scale, so its marks stay as they are"
            key.write(self.store, found, (kind, f"{words}{usable}", {"judge": name}))
            return found

    def explain(self, candidate: Candidate, archive: Archive) -> Analysis:
        """The measured table, with the analyst's prose and the tags where there is a model."""
        parent, siblings = archive.get(candidate.ancestor), archive.siblings(candidate)
        table = ablation.explain(candidate, parent, siblings, archive.baselines, archive.near(candidate))
        if not self.models.present:
            return table
        ask = self.models.of(candidate.id)
        try:
            cited = self.cite(candidate.proposed.cognitions)
            table = prose.explain(ask, candidate, siblings, archive, table, cited)
        except (RoleFailed, ModelError) as error:
            self.models.stand_in(candidate.id, "analyst", "the table stands alone", error)
        return self._tagged(ask, candidate, parent, table) if self.settings.agents.tags else table

    def _tagged(self, ask: Asker, candidate: Candidate, parent: Candidate, analysis: Analysis) -> Analysis:
        """With the components of the layer, and the origin of a language model's idea."""
        try:
            found = tags.components(ask, candidate)
            analysis = msgspec.structs.replace(analysis, components=found)
            if candidate.proposed.model:
                plan = self.plans.begun(candidate.id)
                read = [plan.told[name] for name in ("experience", "references", "standings")] if plan else []
                known = "\n\n".join(text for text in read if text != NOTHING)
                cited = self.cite(candidate.proposed.cognitions)
                origin = tags.origin(ask, candidate, parent, cited, known)
                analysis = msgspec.structs.replace(analysis, origin=origin)
        except (RoleFailed, ModelError) as error:
            self.models.stand_in(candidate.id, "tagger", "some of its tags are missing", error)
        return analysis
