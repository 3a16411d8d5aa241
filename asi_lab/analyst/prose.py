"""The analyst as a language model: five sections over the measured table, and weaknesses (paper, 2.4).

The table stays as it was measured and stands behind the prose, so that every number can be checked.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from asi_lab.analyst.ablation import rows
from asi_lab.llm.ask import Asker
from asi_lab.records import SEED_ID, Analysis, Candidate
from asi_lab.scoring import results
from asi_lab.scoring.archive import Archive
from asi_lab.scoring.baselines import Baselines
from asi_lab.scoring.results import SECTIONS

MOST_WEAKNESSES, LONGEST_WEAKNESS = 5, 200
SHORT = 40
SHOWN_SIBLINGS = 3


class Prose(msgspec.Struct, frozen=True):
    """What the analyst writes."""

    design_evaluation: str
    experimental_results_with_ablation: str
    expectation_vs_reality: str
    theoretical_explanation_with_evidence: str
    synthesis_and_insights: str
    weaknesses: tuple[str, ...] = ()


def explain(
    ask: Asker,
    candidate: Candidate,
    siblings: Sequence[Candidate],
    archive: Archive,
    table: Analysis,
    insights: str = "",
) -> Analysis:
    """Put prose in front of the measured `table` and add the weaknesses that the analyst sees. `insights` are
    those of papers that the candidate rests on.

    Raises:
        RoleFailed: no usable analysis came.
        ModelError: no model can be had.
    """
    parent = archive.get(candidate.ancestor)
    values = {
        "name": candidate.name,
        "motivation": candidate.proposed.motivation,
        "code_diff": results.change(parent, candidate),
        "results": comparison(candidate, parent, siblings, archive.baselines),
        "ablation": ablation(table, archive),
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


def comparison(
    candidate: Candidate, parent: Candidate, siblings: Sequence[Candidate], known: Baselines
) -> str:
    """What was measured of a candidate, beside its parent, its best siblings and the baselines."""
    assert candidate.loss is not None
    columns = [results.measured(results.CANDIDATE, candidate.found, known)]
    if parent.id != SEED_ID and parent.evidence is not None:
        columns.append(results.measured(f"parent: {parent.name}", parent.evidence, known))
    best = sorted(siblings, key=lambda sibling: sibling.loss or 0.0)[:SHOWN_SIBLINGS]
    columns += [results.measured(f"sibling: {c.name}", c.found, known) for c in best]
    table = results.table([*columns, *results.references(known)], known)
    return (
        f"{table}\n\n{results.noise(known)}\nThe candidate's loss: {results.verdict(candidate.loss, known)}."
    )


def ablation(table: Analysis, archive: Archive) -> str:
    """The measured differences, and what each relative changed."""
    lines = [rows(table.ablation, archive.baselines.noise()), ""]
    for row in table.ablation:
        if row.relation != "baseline":
            relative = archive.get(int(row.against.split()[0]))
            lines.append(
                f"- {row.relation} {row.against}, from {relative.parent}: {relative.proposed.change}"
            )
    return "\n".join(lines).strip()


def _demoted(text: str) -> str:
    """A section's text, in which no line is taken for a heading or a rule of the analysis."""
    return re.sub(r"^(#+ |---)", r"    \1", text.strip(), flags=re.MULTILINE)


def _without_title(text: str) -> str:
    """The measured part behind prose, which has a title of its own."""
    return re.sub(r"\A# .*\n+", "", text)
