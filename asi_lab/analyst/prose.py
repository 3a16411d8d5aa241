"""The analyst as a language model: five sections over the measured table, and weaknesses (paper, 2.4).

The table stays as it was measured and stands behind the prose, so that every number can be checked.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from asi_lab import facts
from asi_lab.analyst import rows
from asi_lab.baselines import Baselines
from asi_lab.facts import SECTIONS
from asi_lab.library import Library
from asi_lab.llm.ask import Asker
from asi_lab.records import SEED_ID, Analysis, Candidate

MOST_WEAKNESSES, LONGEST_WEAKNESS = 5, 200
SHORT = 40
MOST_RELATIVES = 20
SHOWN_SIBLINGS = 3


class Prose(msgspec.Struct, frozen=True):
    """What the analyst writes."""

    design_evaluation: str
    experimental_results_with_ablation: str
    expectation_vs_reality: str
    theoretical_explanation_with_evidence: str
    synthesis_and_insights: str
    weaknesses: tuple[str, ...] = ()


class Experience(msgspec.Struct, frozen=True):
    """What the summariser writes."""

    experience: str


def explain(
    ask: Asker,
    candidate: Candidate,
    siblings: Sequence[Candidate],
    library: Library,
    table: Analysis,
    insights: str = "",
) -> Analysis:
    """Put prose in front of the measured `table` and add the weaknesses that the analyst sees. `insights` are
    those of papers that the candidate rests on.

    Raises:
        RoleFailed: no usable analysis came.
        ModelError: no model can be had.
    """
    assert candidate.proposal is not None
    assert candidate.parent is not None
    parent = library.get(candidate.parent)
    values = {
        "name": candidate.name,
        "motivation": candidate.proposal.motivation,
        "code_diff": facts.change(parent, candidate),
        "results": results(candidate, parent, siblings, library.baselines),
        "ablation": ablation(table, library),
        "insights": insights or "none",
    }
    prose = ask("analyst", Prose, values, None, missing)
    text = f"{body(prose)}\n\n---\n\n{_without_title(table.text)}"
    seen = [" ".join(words.split())[:LONGEST_WEAKNESS] for words in prose.weaknesses[:MOST_WEAKNESSES]]
    return msgspec.structs.replace(
        table,
        text=f"# Analysis of candidate {candidate.id}\n\n{text}",
        weaknesses=(*table.weaknesses, *(words for words in seen if words)),
        analyst=ask.model_of("analyst"),
    )


def body(prose: Prose) -> str:
    """The sections as markdown."""
    sections = [f"## {title}\n\n{_demoted(getattr(prose, field))}" for field, title in SECTIONS.items()]
    return "\n\n".join(sections)


def missing(prose: Prose) -> str:
    """What an analysis still lacks, in words for the model; empty if nothing."""
    for field in SECTIONS:
        if len(getattr(prose, field).strip()) < SHORT:
            return f"`{field}` must hold at least one sentence"
    return ""


def results(candidate: Candidate, parent: Candidate, siblings: Sequence[Candidate], known: Baselines) -> str:
    """What was measured of a candidate, beside its parent, its best siblings and the baselines."""
    assert candidate.evidence is not None
    assert candidate.loss is not None
    columns = [facts.measured(facts.CANDIDATE, candidate.evidence)]
    if parent.id != SEED_ID and parent.evidence is not None:
        columns.append(facts.measured(f"parent: {parent.name}", parent.evidence))
    best = sorted(siblings, key=lambda sibling: sibling.loss or 0.0)[:SHOWN_SIBLINGS]
    columns += [facts.measured(f"sibling: {c.name}", c.evidence) for c in best if c.evidence is not None]
    table = facts.table([*columns, *facts.both(known)], known)
    return f"{table}\n\n{facts.noise(known)}\nThe candidate's loss: {facts.verdict(candidate.loss, known)}."


def ablation(table: Analysis, library: Library) -> str:
    """The measured differences, and what each relative changed."""
    lines = [rows(table.ablation, library.baselines.noise()), ""]
    for row in table.ablation:
        if row.relation != "baseline":
            relative = library.get(int(row.against.split()[0]))
            assert relative.proposal is not None
            lines.append(
                f"- {row.relation} {row.against}, from {relative.parent}: {relative.proposal.change}"
            )
    return "\n".join(lines).strip()


def summarise(ask: Asker, parent: Candidate, relatives: Sequence[Candidate], library: Library) -> str:
    """What the analyses of a parent and its relatives have taught, for the planner. Not kept.

    Raises as `explain`.
    """
    analysed = [c for c in (parent, *relatives) if c.analysis is not None]
    if not analysed:
        return ""
    known, columns = library.baselines, facts.both(library.baselines)
    if parent.id != SEED_ID and parent.evidence is not None:
        columns.insert(0, facts.measured(f"parent: {parent.name}", parent.evidence))
    told = [facts.table(columns, known), facts.noise(known)]
    told += [_lesson(c, known) for c in analysed[: 1 + MOST_RELATIVES]]
    results = "\n\n".join([*told, f"### All that stand out\n\n{library.standings()}"])
    return ask("summariser", Experience, {"parent": parent.name, "results": results}).experience.strip()


def _lesson(candidate: Candidate, known: Baselines) -> str:
    """A candidate's change, result and what the analyst learnt from it."""
    assert candidate.proposal is not None
    assert candidate.analysis is not None
    lines = [
        f"### Candidate {candidate.id} {candidate.name}, from {candidate.parent}",
        "",
        f"Change: {candidate.proposal.change}",
        f"Result: {facts.outcome(candidate, known)}",
        *(f"Weakness: {words}" for words in candidate.analysis.weaknesses),
    ]
    if words := facts.lesson(candidate, "theoretical_explanation_with_evidence", "synthesis_and_insights"):
        lines += ["", words]
    return "\n".join(lines)


def _demoted(text: str) -> str:
    """A section's text, in which no line is taken for a heading or a rule of the analysis."""
    return re.sub(r"^(#+ |---)", r"    \1", text.strip(), flags=re.MULTILINE)


def _without_title(text: str) -> str:
    """The measured part behind prose, which has a title of its own."""
    return re.sub(r"\A# .*\n+", "", text)
