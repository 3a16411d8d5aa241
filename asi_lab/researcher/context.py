"""What the planner is told: parent, references, lessons from failures, experience, the scale of the lab."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from asi_lab.records import SEED_ID, Candidate
from asi_lab.settings import Settings

NOTHING = "none yet"
MOST_LESSONS, LONGEST_LESSON = 12, 240
BYTES_A_TOKEN = 3.0
"""Fewer bytes than a token of code has on average in any tokenizer in use, so that estimates are high."""

ANSWER_TOKENS = 8192


def values(
    settings: Settings,
    parent: Candidate,
    references: Sequence[Candidate],
    failures: Sequence[Candidate],
    experience: str,
    most_parameters: int,
    standings: str,
) -> dict[str, str]:
    """The values of the planner's prompt, cut to the window of the model: first the references give way,
    then the lessons, then the experience; the parent's code stays whole."""
    assert parent.proposal is not None
    told = {
        "parent_name": parent.name,
        "parent_code": parent.proposal.code,
        "parent_results": result(parent),
        "references": "\n\n".join(reference(c) for c in references if c.id != SEED_ID) or NOTHING,
        "insights": NOTHING,
        "lessons": lessons(failures) or NOTHING,
        "experience": experience or NOTHING,
        "budget": f"{budget(settings, most_parameters)}\n\n{standings}",
    }
    room = (settings.agents.context - ANSWER_TOKENS) * BYTES_A_TOKEN
    for name in ("references", "lessons", "experience"):
        excess = sum(len(text.encode()) for text in told.values()) - room
        if excess > 0:
            kept = max(0, len(told[name].encode()) - int(excess) - len(NOTHING))
            told[name] = told[name].encode()[:kept].decode("utf-8", "ignore").strip() or NOTHING
    return told


def result(candidate: Candidate) -> str:
    """What came of a candidate, in a few lines."""
    lines = []
    if candidate.score is not None and candidate.loss is not None:
        score = candidate.score
        lines.append(
            f"held-out loss {candidate.loss:.4f} nats ({score.loss_gain:+.2%} over DeltaNet; sd of one run "
            f"{score.noise.loss:.4f}), benchmark {score.benchmark_gain:+.2%}, fitness {score.fitness:.4f}"
        )
    if candidate.evidence is not None and candidate.evidence.evaluation is not None:
        lines += [task.words for task in candidate.evidence.evaluation.tasks]
    if candidate.analysis is not None:
        lines.append(candidate.analysis.summary)
        lines += [f"weakness: {words}" for words in candidate.analysis.weaknesses]
    return "\n".join(lines) or NOTHING


def reference(candidate: Candidate) -> str:
    """A reference: its idea and what came of it."""
    assert candidate.proposal is not None
    proposal = candidate.proposal
    return f"{candidate.name}\nchange: {proposal.change}\nidea: {proposal.motivation}\n{result(candidate)}"


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


def budget(settings: Settings, most_parameters: int) -> str:
    """The scale of the lab, in words."""
    model, train = settings.model, settings.train
    tokens = train.steps * train.batch * train.context
    time, memory = settings.limits.time_ratio, settings.limits.memory_ratio
    return (
        f"The language model has {model.layers} blocks of width {model.width} with {model.heads} heads, and "
        f"is trained on {tokens:,} tokens in sequences of {train.context}. All parameters together: at most "
        f"{most_parameters:,}. A training step of the layer may take at most {time:g} times as long, and "
        f"{memory:g} times the memory, as DeltaNet's."
    )
