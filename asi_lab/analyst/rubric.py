"""The measured rubric: a mark from 1 to 10 without a language model.

Calibrated as in the paper (section 3.1): DeltaNet is 5 and Gated DeltaNet, or the bar, is 10. The
performance part runs linearly through both; the other parts are zero for both by construction and only move
what lies outside the range of the two. Where the two do not differ beyond noise, there is no scale to hang
the performance part on: it is neutral then, and says so.

No part is timed: a mark is the same however busy the machine was.
"""

from __future__ import annotations

import ast

from asi_lab.common.syntax import parsed
from asi_lab.records import Evidence, Judgement, Proposal, RubricPart
from asi_lab.scoring.baselines import HIGHEST, LOWEST, MIDPOINT, Anchor, performance_points
from asi_lab.scoring.work import CONTRADICTED, is_contradicted

MOST_POINTS = HIGHEST - MIDPOINT
"""Points for the loss of the upper end or a lower one."""
NAME = "measured rubric"


def judge(
    proposal: Proposal,
    evidence: Evidence,
    anchors: tuple[Anchor, Anchor],
    anchor_code: tuple[str, str],
    separated: bool,
) -> Judgement:
    """Mark an evaluated candidate against both ends of the scale, DeltaNet first.

    `separated` says whether the two differ in loss beyond noise.
    """
    measured = performance(evidence, anchors, separated)
    others = (
        _complexity(proposal, evidence, anchors, anchor_code),
        _efficiency(evidence, anchors),
        _novelty(proposal),
    )
    mark = MIDPOINT + measured.points + sum(part.points for part in others)
    longer = mark + overshoot(evidence, anchors, separated)
    return Judgement(
        mark=round(max(LOWEST, min(HIGHEST, mark)), 3),
        parts=(measured, *others),
        judge=NAME,
        beyond=round(max(0.0, longer - HIGHEST), 3),
    )


def _part(name: str, points: float, low: float, high: float, reason: str) -> RubricPart:
    return RubricPart(name, round(max(low, min(high, points)), 3), reason)


def performance(evidence: Evidence, anchors: tuple[Anchor, Anchor], separated: bool) -> RubricPart:
    """Points from -4 to 5 for the loss, on the line through 0 for DeltaNet and 5 for the upper end; neutral
    where the two are not `separated`."""
    lower, upper = anchors
    if not separated or upper.loss >= lower.loss:
        return _part(
            "performance",
            0.0,
            0.0,
            0.0,
            f"neutral: here {upper.title} is not better than DeltaNet beyond noise, so they give no scale",
        )
    points = performance_points(evidence.measured.loss, lower, upper)
    reason = f"{points / 5:.0%} of the way in loss from DeltaNet to {upper.title}"
    return _part("performance", points, -4.0, MOST_POINTS, reason)


def overshoot(evidence: Evidence, anchors: tuple[Anchor, Anchor], separated: bool) -> float:
    """Points that `performance` cuts off above its end, 0 for none."""
    return max(0.0, performance_points(evidence.measured.loss, *anchors) - MOST_POINTS) if separated else 0.0


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


def _efficiency(evidence: Evidence, anchors: tuple[Anchor, Anchor]) -> RubricPart:
    """Points from -1.5 to 0.5 for the work that one token asks for, by the geometric mean of the ratios of
    operations and of bytes: half a point at half the work of the cheaper reference, -0.75 at twice that of
    the dearer one, zero between them."""
    works = [anchor.work for anchor in anchors]
    if evidence.work is None or None in works:
        return _part("efficiency", 0.0, 0.0, 0.0, "neutral: operations and bytes were not counted")
    if is_contradicted(evidence, anchors[0]):
        words = f"by its processor seconds it is over {CONTRADICTED:g} times as dear as it counts"
        return _part("efficiency", -1.5, -1.5, -1.5, f"the count is not used: {words}")
    cheap, dear = sorted(work.size for work in works if work is not None)
    size = evidence.work.size
    points = 0.5 * max(0.0, cheap / size - 1.0) - 1.5 * max(0.0, 1.0 - dear / size)
    reason = f"{size / dear:.2f}x the operations and bytes a token of the dearer reference"
    return _part("efficiency", points, -1.5, 0.5, reason)


def _novelty(proposal: Proposal) -> RubricPart:
    nearest = max((neighbour.similarity for neighbour in proposal.nearest), default=0.0)
    reason = f"nearest earlier motivation at similarity {nearest:.2f}"
    return _part("novelty", 1.0 - max(0.0, nearest), 0.0, 1.0, reason)


def _nodes(code: str) -> int:
    """Size of code as the number of syntax nodes: blind to formatting, comments count nothing."""
    return sum(1 for _ in ast.walk(parsed(code)))
