"""What the planner is told: parent, other architectures, lessons from failures, experience, the scale."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Sequence

from asi_lab import facts
from asi_lab.baselines import SEED_ARCHITECTURE, Baselines
from asi_lab.library import Library
from asi_lab.records import SEED_ID, Candidate, Draw
from asi_lab.settings import Settings
from asi_lab.stagnation import PARADIGM

NOTHING = "none yet"
MOST_LESSONS, LONGEST_LESSON = 12, 240
DIFF_LINES = 120


def values(settings: Settings, draw: Draw, library: Library, experience: str) -> dict[str, str]:
    """The values of the planner's prompt."""
    parent, known = library.get(draw.parent), library.baselines
    assert parent.proposal is not None
    return {
        "parent_name": parent.name,
        "parent_code": parent.proposal.code,
        "parent_results": results(parent, library),
        "references": references(parent, [library.get(number) for number in draw.references], library),
        "standings": library.standings() or NOTHING,
        "insights": NOTHING,
        "lessons": lessons(library.failures()) or NOTHING,
        "experience": experience or NOTHING,
        "direction": direction(draw, library),
        "budget": budget(settings, known, library.most_parameters),
    }


def results(parent: Candidate, library: Library) -> str:
    """The parent's figures beside those of the baselines and the best, and what the analyst made of them."""
    known, columns = library.baselines, facts.both(library.baselines)
    if parent.id != SEED_ID and parent.evidence is not None:
        columns.insert(0, facts.measured(parent.name, parent.evidence))
    columns += [
        facts.measured(f"best so far: {best.name}", best.evidence)
        for best in library.best()
        if best.id != parent.id and best.evidence is not None
    ]
    lines = [facts.table(columns, known), "", facts.noise(known)]
    if parent.analysis is not None:
        lines += ["", parent.analysis.summary]
        lines += [f"- weakness: {words}" for words in parent.analysis.weaknesses]
    return "\n".join(lines)


def references(parent: Candidate, drawn: Sequence[Candidate], library: Library) -> str:
    """The drawn references with their ideas, and the code of the best as a change of the parent's."""
    told = [reference(c, library.baselines) for c in drawn if c.id not in (SEED_ID, parent.id)]
    for best in library.best():
        if best.id != parent.id and best.proposal is not None and parent.proposal is not None:
            told.insert(0, f"{reference(best, library.baselines)}\n\n{_change(parent, best)}")
    return "\n\n".join(told) or NOTHING


def reference(candidate: Candidate, known: Baselines) -> str:
    """An architecture: its idea and what came of it."""
    assert candidate.proposal is not None
    lines = [
        f"### {candidate.name} (candidate {candidate.id}, from {candidate.parent})",
        "",
        f"Change: {candidate.proposal.change}",
        f"Idea: {candidate.proposal.motivation}",
        f"Result: {facts.outcome(candidate, known)}",
    ]
    if candidate.analysis is not None and candidate.analysis.weaknesses:
        lines.append(f"Weaknesses: {'; '.join(candidate.analysis.weaknesses)}")
    return "\n".join(lines)


def _change(parent: Candidate, best: Candidate) -> str:
    assert parent.proposal is not None
    assert best.proposal is not None
    before, after = parent.proposal.code.splitlines(), best.proposal.code.splitlines()
    lines = list(difflib.unified_diff(before, after, parent.name, best.name, n=1, lineterm=""))
    kept = lines[:DIFF_LINES] + ["[cut]"] * (len(lines) > DIFF_LINES)
    return "\n".join([f"The best so far. From {parent.name} to it:", "", "```diff", *kept, "```"])


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
    assert candidate.evidence is not None
    lines = candidate.evidence.error.strip().splitlines()
    return f"{candidate.state.value}: {lines[-1] if lines else 'no message'}"[:LONGEST_LESSON]


def direction(draw: Draw, library: Library) -> str:
    """What is asked for beside the usual: another paradigm where the search stands still."""
    if draw.step < PARADIGM:
        return "Follow the evidence."
    used = "; ".join(c.proposal.change for c in library.best(5) if c.proposal is not None)
    return (
        f"The search stands still: candidate after candidate, the best have not improved beyond noise. "
        f"Refining them is used up ({used}). Leave this paradigm: another kind of memory, another rule to "
        "write it, another order of computation, a path of another nature. A bold idea with a clear reason "
        "is worth more now than a safe variation."
    )


def budget(settings: Settings, known: Baselines, most_parameters: int) -> str:
    """The scale of the lab, in words."""
    model, train, limits = settings.model, settings.train, settings.limits
    tokens = train.steps * train.batch * train.context
    params = known.anchor(SEED_ARCHITECTURE).params
    spare = (most_parameters - params) // model.layers
    mlp = "x = x + mlp(norm(x))" if model.mlp_ratio else "no mlp"
    return (
        f"{model.layers} blocks: x = x + layer(norm(x)); {mlp}. Width D = {model.width}, "
        f"{model.heads} heads. Training: {train.steps:,} steps of AdamW on {train.batch} sequences of "
        f"{train.context} tokens ({tokens:,} in all), learning rate {train.learning_rate:g}: what is learned "
        f"slowly does not pay. With DeltaNet the whole model has {params:,} parameters, at most "
        f"{most_parameters:,} are allowed: each layer may have up to {spare:,} more than DeltaNet's. A "
        f"training step of the layer may take at most {limits.time_ratio:g} times as long, and "
        f"{limits.memory_ratio:g} times the memory, as DeltaNet's."
    )
