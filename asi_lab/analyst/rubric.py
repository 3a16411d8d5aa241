"""The measured rubric: a mark from 1 to 10 without a language model.

Calibrated as in the paper (section 3.1): DeltaNet is 5 and Gated DeltaNet is 10. The performance part
runs linearly through both; the other parts are zero for both by construction and only move what lies
outside the range of the two. Where the two do not differ beyond noise, there is no scale to hang the
performance part on: it is neutral then, and says so.
"""

from __future__ import annotations

import ast

from asi_lab.common.syntax import parsed
from asi_lab.records import Evidence, Judgement, Proposal, RubricPart
from asi_lab.scoring.baselines import Anchor, performance_points

MIDPOINT = 5.0
NAME = "measured rubric"


def judge(
    proposal: Proposal,
    evidence: Evidence,
    anchors: tuple[Anchor, Anchor],
    anchor_code: tuple[str, str],
    separated: bool,
    timing: bool,
) -> Judgement:
    """Mark an evaluated candidate against (DeltaNet, Gated DeltaNet).

    `separated` says whether the two differ in loss beyond noise, `timing` whether speed may count.
    """
    parts = (
        performance(evidence, anchors, separated),
        _complexity(proposal, evidence, anchors, anchor_code),
        _efficiency(evidence, anchors, timing),
        _novelty(proposal),
    )
    mark = max(1.0, min(10.0, MIDPOINT + sum(part.points for part in parts)))
    return Judgement(mark=round(mark, 3), parts=parts, judge=NAME)


def _part(name: str, points: float, low: float, high: float, reason: str) -> RubricPart:
    return RubricPart(name, round(max(low, min(high, points)), 3), reason)


def performance(evidence: Evidence, anchors: tuple[Anchor, Anchor], separated: bool) -> RubricPart:
    """Points from -4 to 5 for the loss, on the line through 0 for DeltaNet and 5 for Gated DeltaNet; neutral
    where the two are not `separated`."""
    lower, upper = anchors
    if not separated or upper.loss >= lower.loss:
        return _part(
            "performance",
            0.0,
            0.0,
            0.0,
            "neutral: here Gated DeltaNet is not better than DeltaNet beyond noise, so they give no scale",
        )
    points = performance_points(evidence.measured.loss, lower, upper)
    reason = f"{points / 5:.0%} of the way in loss from DeltaNet to Gated DeltaNet"
    return _part("performance", points, -4.0, 5.0, reason)


def _complexity(
    proposal: Proposal, evidence: Evidence, anchors: tuple[Anchor, Anchor], anchor_code: tuple[str, str]
) -> RubricPart:
    params = evidence.trained.params / max(anchor.params for anchor in anchors)
    code = _nodes(proposal.code) / max(_nodes(code) for code in anchor_code)
    points = -1.0 * max(0.0, params - 1.0) / 0.25 - 0.5 * max(0.0, code - 1.0)
    return _part(
        "complexity",
        points,
        -1.5,
        0.0,
        f"{params:.2f}x the parameters and {code:.2f}x the code of the larger reference",
    )


def _efficiency(evidence: Evidence, anchors: tuple[Anchor, Anchor], timing: bool) -> RubricPart:
    if not timing:
        return _part("efficiency", 0.0, 0.0, 0.0, "neutral: timing is switched off in this lab")
    slow, fast = sorted(anchor.tokens_per_second for anchor in anchors)
    speed = evidence.trained.tokens_per_second
    points = 0.5 * max(0.0, speed / fast - 1.0) - 1.5 * max(0.0, 1.0 - speed / slow)
    return _part("efficiency", points, -1.5, 0.5, f"{speed / slow:.2f}x the speed of the slower reference")


def _novelty(proposal: Proposal) -> RubricPart:
    nearest = max((neighbour.similarity for neighbour in proposal.nearest), default=0.0)
    reason = f"nearest earlier motivation at similarity {nearest:.2f}"
    return _part("novelty", 1.0 - max(0.0, nearest), 0.0, 1.0, reason)


def _nodes(code: str) -> int:
    """Size of code as the number of syntax nodes: blind to formatting, comments count nothing."""
    return sum(1 for _ in ast.walk(parsed(code)))
