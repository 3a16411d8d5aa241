"""What earlier analyses have taught, in a language model's words, for the planner (paper, section 2.2)."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from asi_lab.llm.ask import Asker
from asi_lab.records import SEED_ID, Candidate
from asi_lab.scoring import results
from asi_lab.scoring.archive import Archive
from asi_lab.scoring.baselines import Baselines

MOST_RELATIVES = 20


class Experience(msgspec.Struct, frozen=True):
    """What the summariser writes."""

    experience: str


def summarise(ask: Asker, parent: Candidate, relatives: Sequence[Candidate], archive: Archive) -> str:
    """What the analyses of a parent and its relatives have taught, for the planner. Not kept.

    Raises:
        RoleFailed: no usable summary came.
        ModelError: no model can be had.
    """
    analysed = [c for c in (parent, *relatives) if c.analysis is not None]
    if not analysed:
        return ""
    known, columns = archive.baselines, results.references(archive.baselines)
    if parent.id != SEED_ID and parent.evidence is not None:
        columns.insert(0, results.measured(f"parent: {parent.name}", parent.evidence, known))
    told = [results.table(columns, known), results.noise(known)]
    told += [_lesson(c, known) for c in analysed[: 1 + MOST_RELATIVES]]
    shown = "\n\n".join([*told, f"### All that stand out\n\n{archive.standings()}"])
    return ask("summariser", Experience, {"parent": parent.name, "results": shown}).experience.strip()


def _lesson(candidate: Candidate, known: Baselines) -> str:
    """A candidate's change, result and what the analyst learnt from it."""
    assert candidate.analysis is not None
    lines = [
        f"### Candidate {candidate.id} {candidate.name}, from {candidate.parent}",
        "",
        f"Change: {candidate.proposed.change}",
        f"Result: {results.outcome(candidate, known)}",
        *(f"Weakness: {words}" for words in candidate.analysis.weaknesses),
    ]
    if words := results.lesson(candidate, "theoretical_explanation_with_evidence", "synthesis_and_insights"):
        lines += ["", words]
    return "\n".join(lines)
