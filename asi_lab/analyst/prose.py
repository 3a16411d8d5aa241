"""The analyst as a language model: five sections over the measured table, and weaknesses (paper, 2.4).

The table stays as it was measured and stands behind the prose, so that every number can be checked.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import msgspec

from asi_lab.baselines import Baselines
from asi_lab.llm.ask import Asker
from asi_lab.records import Analysis, Candidate

SECTIONS = {
    "design_evaluation": "Design",
    "experimental_results_with_ablation": "Results and ablation",
    "expectation_vs_reality": "Expectation and reality",
    "theoretical_explanation_with_evidence": "Explanation",
    "synthesis_and_insights": "Insights",
}
MOST_WEAKNESSES, LONGEST_WEAKNESS = 5, 200
SHORT = 40


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
    ask: Asker, candidate: Candidate, parent: Candidate, table: Analysis, baselines: Baselines
) -> Analysis:
    """Put prose in front of the measured `table` and add the weaknesses that the analyst sees.

    Raises:
        RoleFailed: no usable analysis came.
        ModelError: no model can be had.
    """
    assert candidate.proposal is not None
    assert parent.proposal is not None
    before, after = parent.proposal.code.splitlines(), candidate.proposal.code.splitlines()
    diff = difflib.unified_diff(before, after, "parent", "candidate", n=2, lineterm="")
    values = {
        "name": candidate.name,
        "motivation": candidate.proposal.motivation,
        "code_diff": "\n".join(diff),
        "results": results(candidate),
        "baseline_table": baseline_table(baselines),
        "ablation": table.text,
        "insights": "none",
    }
    prose = ask("analyst", Prose, values, None, missing)
    body = "\n\n".join(f"## {title}\n\n{getattr(prose, field).strip()}" for field, title in SECTIONS.items())
    seen = [" ".join(words.split())[:LONGEST_WEAKNESS] for words in prose.weaknesses[:MOST_WEAKNESSES]]
    return msgspec.structs.replace(
        table,
        text=f"# Analysis of candidate {candidate.id}\n\n{body}\n\n---\n\n{table.text}",
        weaknesses=(*table.weaknesses, *(words for words in seen if words)),
        analyst=ask.model_of("analyst"),
    )


def missing(prose: Prose) -> str:
    """What an analysis still lacks, in words for the model; empty if nothing."""
    for field in SECTIONS:
        if len(getattr(prose, field).strip()) < SHORT:
            return f"`{field}` must hold at least one sentence"
    return ""


def results(candidate: Candidate) -> str:
    """What was measured of a candidate, as lines of text."""
    evidence = candidate.evidence
    assert evidence is not None
    assert evidence.evaluation is not None
    lines = [f"held-out loss {evidence.evaluation.loss:.4f} nats"]
    if evidence.training is not None:
        training = evidence.training
        lines.append(
            f"{training.params:,} parameters, {training.tokens_per_second:,.0f} tokens/s in training"
        )
    lines += [
        f"held-out loss after {held_out.step} steps: {held_out.loss:.4f}" for held_out in evidence.held_out
    ]
    lines += [task.words for task in evidence.evaluation.tasks]
    return "\n".join(lines)


def baseline_table(baselines: Baselines) -> str:
    """The means of the baselines, as lines of text."""
    noise = baselines.noise()
    return "\n".join(
        f"{name}: held-out loss {baselines.anchor(name).loss:.4f} nats (sd of one run {noise.loss:.4f}), "
        f"{baselines.anchor(name).params:,} parameters"
        for name in baselines.runs
    )


def summarise(ask: Asker, parent: Candidate, relatives: Sequence[Candidate]) -> str:
    """What the analyses of a parent and its relatives have taught, for the planner. Not kept.

    Raises as `explain`.
    """
    analysed = [c for c in (parent, *relatives) if c.analysis is not None]
    if not analysed:
        return ""
    told = "\n\n".join(
        f"### Candidate {c.id} ({c.name})\n\n{c.analysis.text}" for c in analysed if c.analysis
    )
    return ask("summariser", Experience, {"parent": parent.name, "results": told}).experience.strip()
