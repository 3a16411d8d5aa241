"""The judge as a language model: marks from 1 to 10, asked several times (paper, section 2.1).

It sees measurements and code without comments, docstrings and names of the author's choosing, so that
prose cannot win points. How well the layer performs is computed; the model marks the other three parts.
It marks both ends of the scale, too, and its scale is stretched so that they get 5 and 10. Nothing that
it is told was timed.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, median

import msgspec

from asi_lab.analyst.rubric import overshoot, performance
from asi_lab.common.syntax import without_prose
from asi_lab.llm.ask import Asker
from asi_lab.records import Candidate, Judgement, RubricPart
from asi_lab.scoring import results
from asi_lab.scoring.baselines import HIGHEST, LOWEST, MIDPOINT, SEED_ARCHITECTURE, TITLES, Baselines

PARTS = ("complexity", "efficiency", "novelty")
LEAST_SPAN = 1.0
"""A judge whose marks of the two references lie closer together has no scale that could be stretched."""


class Marks(msgspec.Struct, frozen=True):
    """One opinion: marks from 1 to 10, each with its reason."""

    complexity: float
    efficiency: float
    novelty: float
    complexity_reason: str = ""
    efficiency_reason: str = ""
    novelty_reason: str = ""

    @property
    def mark(self) -> float:
        """Their mean; models err in arithmetic."""
        return fmean(getattr(self, name) for name in PARTS)


class Scale(msgspec.Struct, frozen=True):
    """What a judge gives to the ends of the scale, DeltaNet (`low`) and the upper one (`high`): medians of
    its opinions."""

    low: float
    high: float

    @property
    def is_usable(self) -> bool:
        """Whether the judge tells the two apart, the right way round."""
        return self.high - self.low >= LEAST_SPAN

    def put_right(self, mark: float) -> float:
        """A mark on the scale on which DeltaNet has 5 and the upper end 10, within [1, 10]."""
        if not self.is_usable:
            return mark
        stretched = MIDPOINT + (mark - self.low) * MIDPOINT / (self.high - self.low)
        return max(LOWEST, min(HIGHEST, stretched))


def scale(ask: Asker, code: tuple[str, str], known: Baselines, samples: int) -> Scale:
    """Have a judge mark both ends of the scale, whose `code` is given, DeltaNet first, as it marks others.

    Raises as `judge`.
    """
    given = []
    for architecture, text in zip((SEED_ARCHITECTURE, known.top), code, strict=True):
        own = results.baseline(known, architecture)
        told = _told(msgspec.structs.replace(own, title=results.CANDIDATE), (), known)
        given.append(median(opinion.mark for opinion in _opinions(ask, told, text, known, samples)))
    return Scale(*given)


def judge(
    ask: Asker,
    candidate: Candidate,
    near: Sequence[Candidate],
    known: Baselines,
    found: Scale,
    samples: int,
) -> Judgement:
    """Mark an evaluated candidate: the median of `samples` opinions, on the judge's own scale `found`. `near`
    are earlier candidates with like ideas.

    Raises:
        RoleFailed: an opinion could not be read.
        ModelError: no model can be had.
    """
    told = _told(results.measured(results.CANDIDATE, candidate.found, known), near, known)
    opinions = _opinions(ask, told, candidate.code, known, samples)
    scaled = candidate.found, known.anchors(), known.separated()
    measured = performance(*scaled)
    raw = median(opinion.mark for opinion in opinions)
    right = found.put_right(raw)
    middle = sorted(opinions, key=lambda opinion: opinion.mark)[samples // 2]
    parts = [measured]
    for name in PARTS:
        points = median(getattr(opinion, name) for opinion in opinions) - MIDPOINT
        reason = " ".join(str(getattr(middle, f"{name}_reason")).split())
        parts.append(RubricPart(name, round(points, 3), reason))
    words = f"this judge gives DeltaNet {found.low:.1f} and {TITLES[known.top]} {found.high:.1f}"
    words = words if found.is_usable else f"left as it is: {words}"
    parts.append(RubricPart("scale", round(right - raw, 3), words))
    mark = (MIDPOINT + measured.points + len(PARTS) * right) / (1 + len(PARTS))
    longer = mark + overshoot(*scaled) / (1 + len(PARTS))
    return Judgement(
        mark=round(mark, 3),
        parts=tuple(parts),
        judge=ask.model_of("judge"),
        marks=tuple(round(o.mark, 3) for o in opinions),
        beyond=round(max(0.0, longer - HIGHEST), 3),
    )


def _opinions(ask: Asker, told: str, code: str, known: Baselines, samples: int) -> list[Marks]:
    values = {"rubric_facts": told, "code": without_prose(code), "top": TITLES[known.top]}
    return [ask("judge", Marks, values, None, missing) for _ in range(samples)]


def missing(opinion: Marks) -> str:
    """What is wrong with an opinion, in words for the model; empty if nothing."""
    for name in PARTS:
        if not LOWEST <= getattr(opinion, name) <= HIGHEST:
            return f"`{name}` must lie between {LOWEST:g} and {HIGHEST:g}; found {getattr(opinion, name):g}"
    return ""


def _told(own: results.Column, near: Sequence[Candidate], known: Baselines) -> str:
    """What was measured of a layer, beside the two references."""
    columns = [own, *results.references(known)]
    lines = [results.table(columns, known), "", results.noise(known)]
    lines.append(f"The candidate's loss: {results.verdict(own.loss, known)}.")
    changes = [f"{c.proposal.change}: {results.outcome(c, known)}" for c in near if c.proposal is not None]
    lines += [
        "",
        "Earlier ideas that are most like its own:",
        *(f"- {change}" for change in changes or ["none"]),
    ]
    return "\n".join(lines)
