"""What the planner is told: parent, other architectures, lessons from failures, experience, the scale."""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Sequence

from asi_lab.data.probes import MODEL as PROBE_MODEL
from asi_lab.records import SEED_ID, Candidate, Draw
from asi_lab.researcher.stagnation import PARADIGM
from asi_lab.scoring import results
from asi_lab.scoring.archive import Archive
from asi_lab.scoring.baselines import SEED_ARCHITECTURE, Baselines
from asi_lab.scoring.results import NOTHING
from asi_lab.settings import Settings

MOST_LESSONS, LONGEST_LESSON = 12, 240
DIFF_LINES = 120
PLACES = (
    "how the memory is written and what it drops",
    "how the memory is read, and what comes out where it holds nothing",
    "what queries and keys are made of",
    "the path of nearby tokens",
    "memories or time scales side by side",
    "how the parts of the output are weighed",
)
"""Where a planner is to look first, by turns."""


def values(
    settings: Settings,
    candidate_id: int,
    draw: Draw,
    archive: Archive,
    experience: str,
    insights: str = "",
    idea: str = "",
) -> dict[str, str]:
    """The values of the prompt of the planner of a candidate; `insights` are those of papers, `idea` is what
    a person wants it to take up."""
    parent, known = archive.get(draw.parent), archive.baselines
    return {
        "parent_name": parent.name,
        "parent_code": parent.code,
        "parent_results": parent_results(parent, archive),
        "references": references(parent, [archive.get(number) for number in draw.references], archive),
        "standings": archive.standings() or NOTHING,
        "insights": insights or NOTHING,
        "lessons": lessons(archive.failures()) or NOTHING,
        "experience": experience or NOTHING,
        "direction": wish(idea) if idea else direction(candidate_id, draw, archive),
        "budget": budget(settings, known, archive.most_parameters),
    }


def parent_results(parent: Candidate, archive: Archive) -> str:
    """The parent's figures beside those of the baselines and the best, and what the analyst made of them."""
    known, columns = archive.baselines, results.references(archive.baselines)
    if parent.id != SEED_ID and parent.evidence is not None:
        columns.insert(0, results.measured(parent.name, parent.evidence, known))
    columns += [
        results.measured(f"best so far: {best.name}", best.evidence, known)
        for best in archive.best()
        if best.id != parent.id and best.evidence is not None
    ]
    lines = [results.table(columns, known), "", results.noise(known)]
    if parent.analysis is not None:
        lines += ["", parent.analysis.summary]
        lines += [f"- weakness: {words}" for words in parent.analysis.weaknesses]
    return "\n".join(lines)


def references(parent: Candidate, drawn: Sequence[Candidate], archive: Archive) -> str:
    """The drawn references with their ideas, and the code of the best as a change of the parent's."""
    told = [reference(c, archive.baselines) for c in drawn if c.id not in (SEED_ID, parent.id)]
    for best in archive.best():
        if best.id != parent.id and best.proposal is not None and parent.proposal is not None:
            told.insert(0, f"{reference(best, archive.baselines)}\n\n{_change(parent, best)}")
    return "\n\n".join(told) or NOTHING


def reference(candidate: Candidate, known: Baselines) -> str:
    """An architecture: its change, what was learnt from it or else its idea, and what came of it."""
    learnt = results.lesson(candidate, "synthesis_and_insights").removeprefix("Lesson: ")
    lines = [
        f"### {candidate.name} (candidate {candidate.id}, from {candidate.parent})",
        "",
        f"Change: {candidate.proposed.change}",
        f"Lesson: {learnt}" if learnt else f"Idea: {candidate.proposed.motivation}",
        f"Result: {results.outcome(candidate, known)}",
    ]
    if candidate.analysis is not None and candidate.analysis.weaknesses:
        lines.append(f"Weaknesses: {'; '.join(candidate.analysis.weaknesses)}")
    return "\n".join(lines)


def _change(parent: Candidate, best: Candidate) -> str:
    shown = results.change(parent, best, context=1, most=DIFF_LINES)
    return f"The best so far. From {parent.name} to it:\n\n```diff\n{shown}\n```"


def lessons(failures: Sequence[Candidate]) -> str:
    """What was rejected and why, the latest first, each kind of failure once with its count."""
    counts: Counter[str] = Counter()
    first: dict[str, str] = {}
    for candidate in reversed(failures):
        if candidate.evidence is None:
            continue
        words = _reason(candidate)
        kind = re.sub(r"\d+(\.\d+)?(e[+-]?\d+)?", "#", words)
        counts[kind] += 1
        first.setdefault(kind, words)
    told = [
        f"- {words}" + (f" ({counts[kind]} times)" if counts[kind] > 1 else "")
        for kind, words in list(first.items())[:MOST_LESSONS]
    ]
    return "\n".join(told)


def _reason(candidate: Candidate) -> str:
    lines = candidate.found.error.strip().splitlines()
    return f"{candidate.state.value}: {lines[-1] if lines else 'no message'}"[:LONGEST_LESSON]


def direction(candidate_id: int, draw: Draw, archive: Archive) -> str:
    """Where to look: those who plan at the same time each elsewhere first, and all of them for another
    paradigm where the search stands still."""
    if draw.step < PARADIGM:
        place = PLACES[candidate_id % len(PLACES)]
        return (
            "Follow the evidence. Others plan at the same time, with the same facts. So where these leave it "
            f"open, look first at {place}."
        )
    used = "; ".join(c.proposal.change for c in archive.best(5) if c.proposal is not None)
    return (
        f"The search stands still: candidate after candidate, the best have not improved beyond noise. "
        f"Refining them is used up ({used}). Leave this paradigm: another kind of memory, another rule to "
        "write it, another order of computation, a path of another nature. A bold idea with a clear reason "
        "is worth more now than a safe variation."
    )


def wish(idea: str) -> str:
    """What a person asks for, which goes before all directions of our own."""
    return (
        "The researcher who runs this lab asks for the following. Take it up: build the mechanism that it "
        "names, as well as the rules for the code and the limits allow, and say in `motivation` how you did. "
        f"Where it leaves something open, follow the evidence.\n\n{textwrap.indent(idea, '> ')}"
    )


def budget(settings: Settings, known: Baselines, most_parameters: int) -> str:
    """The scale of the lab, in words."""
    model, train, limits = settings.model, settings.train, settings.limits
    tokens = train.steps * train.batch * train.context
    params = known.anchor(SEED_ARCHITECTURE).params
    spare = (most_parameters - params) // model.layers
    mlp = f"x = x + mlp(norm(x)), {model.mlp} x {model.mlp_ratio:.3g}" if model.mlp_ratio else "no mlp"
    tied = "tied embeddings" if model.tie_embeddings else "embeddings and output apart"
    schedule = f"{train.schedule}, {train.warmup_steps:,} steps of warm-up"
    tiny = PROBE_MODEL
    probed = (
        f" The layer is also trained in tiny models of {tiny.layers} blocks, width {tiny.width} and "
        f"{tiny.heads} heads, on short synthetic streams: it must work there too."
        if settings.evaluate.probes
        else ""
    )
    return (
        f"{model.layers} blocks: x = x + layer(norm(x)); {mlp}. Width D = {model.width}, "
        f"{model.heads} heads, {tied}, {settings.data.vocabulary:,} tokens in the vocabulary. Training: "
        f"{train.steps:,} steps of AdamW on {train.batch} sequences of {train.context} tokens ({tokens:,} in "
        f"all), learning rate {train.learning_rate:g} ({schedule}), weight decay {train.weight_decay:g}: "
        f"what is learned slowly does not pay. With DeltaNet the whole model has {params:,} parameters, at "
        f"most {most_parameters:,} are allowed: each layer may have up to {spare:,} more than DeltaNet's. A "
        f"training step of the layer may take at most {limits.time_ratio:g} times as long, and "
        f"{limits.memory_ratio:g} times the memory, as DeltaNet's.{probed}"
    )
