"""The judge as a language model: marks from 1 to 10, asked several times (paper, section 2.1).

It sees measurements and code without comments, docstrings and names of the author's choosing, so that
prose cannot win points. DeltaNet is 5 and Gated DeltaNet is 10 on its scale.
"""

from __future__ import annotations

from statistics import fmean, median

import msgspec

from asi_lab.baselines import Anchor
from asi_lab.llm.ask import Asker
from asi_lab.records import Evidence, Judgement, Proposal, RubricPart
from asi_lab.source import without_prose

LOWEST, HIGHEST, MIDPOINT = 1.0, 10.0, 5.0
PARTS = ("performance", "complexity", "efficiency", "novelty")


class Marks(msgspec.Struct, frozen=True):
    """One opinion: marks of the four parts of the rubric, each from 1 to 10."""

    performance: float
    complexity: float
    efficiency: float
    novelty: float
    reason: str = ""

    @property
    def mark(self) -> float:
        """Their mean; models err in arithmetic."""
        return fmean(getattr(self, name) for name in PARTS)


def judge(
    ask: Asker, proposal: Proposal, evidence: Evidence, anchors: tuple[Anchor, Anchor], samples: int
) -> Judgement:
    """Mark an evaluated candidate against (DeltaNet, Gated DeltaNet): the median of `samples` opinions.

    Raises:
        RoleFailed: an opinion could not be read.
        ModelError: no model can be had.
    """
    values = {"rubric_facts": facts(evidence, anchors, proposal), "code": without_prose(proposal.code)}
    opinions = [ask("judge", Marks, values, None, missing) for _ in range(samples)]
    middle = sorted(opinions, key=lambda opinion: opinion.mark)[samples // 2]
    parts = tuple(
        RubricPart(name, round(median(getattr(o, name) for o in opinions) - MIDPOINT, 3), "")
        for name in PARTS
    )
    mark = median(opinion.mark for opinion in opinions)
    told = (msgspec.structs.replace(parts[0], reason=" ".join(middle.reason.split())), *parts[1:])
    return Judgement(round(mark, 3), told, ask.model_of("judge"), tuple(o.mark for o in opinions))


def missing(opinion: Marks) -> str:
    """What is wrong with an opinion, in words for the model; empty if nothing."""
    for name in PARTS:
        if not LOWEST <= getattr(opinion, name) <= HIGHEST:
            return f"`{name}` must lie between {LOWEST:g} and {HIGHEST:g}; found {getattr(opinion, name):g}"
    return ""


def facts(evidence: Evidence, anchors: tuple[Anchor, Anchor], proposal: Proposal) -> str:
    """What was measured, as lines of text."""
    assert evidence.evaluation is not None
    assert evidence.training is not None
    lower, upper = anchors
    rows = [
        ("DeltaNet (mark 5)", lower.loss, lower.params, lower.tokens_per_second),
        ("Gated DeltaNet (mark 10)", upper.loss, upper.params, upper.tokens_per_second),
        (
            "the candidate",
            evidence.evaluation.loss,
            evidence.training.params,
            evidence.training.tokens_per_second,
        ),
    ]
    lines = [
        f"{name}: held-out loss {loss:.4f} nats, {params:,} parameters, {speed:,.0f} tokens/s in training"
        for name, loss, params, speed in rows
    ]
    lines += [task.words for task in evidence.evaluation.tasks]
    nearest = max((neighbour.similarity for neighbour in proposal.nearest), default=0.0)
    lines.append(f"similarity of its idea to the nearest earlier one: {nearest:.2f} (1 is the same)")
    return "\n".join(lines)
