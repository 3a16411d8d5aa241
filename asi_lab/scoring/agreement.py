"""Does a scale of claims tell what the next one says, and does promotion find what is better?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

import msgspec

from asi_lab.lab import trial_label
from asi_lab.scoring.statistics import rank_correlation
from asi_lab.scoring.verification import Verdict, Verification

LEAST = 5
"""Architectures that a rank correlation is shown from."""


class Correlation(msgspec.Struct, frozen=True):
    """Spearman's rank correlation over so many architectures, and its 95 % interval over architectures drawn
    again."""

    count: int
    value: float
    interval: tuple[float, float]


class Agreement(msgspec.Struct, frozen=True):
    """The mean fresh losses at two scales: over all architectures that were run at both, and over the better
    half by the larger scale. None where they are too few."""

    smaller: str
    larger: str
    count: int
    everyone: Correlation | None
    better_half: Correlation | None


class Hits(msgspec.Struct, frozen=True):
    """Of the claims at one scale that have ended, how many hold; of the candidates with a loss there, those
    promoted by the rule and those drawn by lot, how many have a mean under the bar's."""

    scale: str
    ended: int
    holding: int
    promoted: int
    promoted_under: int
    drawn: int
    drawn_under: int


def agreement(smaller: str, low: Verification, larger: str, high: Verification) -> Agreement:
    """How two scales rank what was run at both."""
    means = [{who: fmean(losses) for who, losses in found.losses.items() if losses} for found in (low, high)]
    both = sorted(means[0].keys() & means[1].keys(), key=lambda who: (means[1][who], who))
    half = both[: (len(both) + 1) // 2]
    return Agreement(smaller, larger, len(both), _correlation(means, both), _correlation(means, half))


def _correlation(means: Sequence[Mapping[str, float]], names: Sequence[str]) -> Correlation | None:
    if len(names) < LEAST:
        return None
    value, interval = rank_correlation(*([of[name] for name in names] for of in means))
    return Correlation(len(names), value, interval)


def hits(scale: str, found: Verification) -> Hits:
    """How often those who were promoted are better, beside those drawn by lot."""
    bar = found.losses[found.terms.bar]
    mean = fmean(bar) if bar else 0.0

    def under(numbers: Sequence[int]) -> tuple[int, int]:
        known = [found.losses[trial_label(number)] for number in numbers]
        measured = [fmean(losses) for losses in known if losses and bar]
        return len(measured), sum(loss < mean for loss in measured)

    ended = [claim for claim in found.claims if claim.verdict is not Verdict.OPEN]
    holding = sum(claim.verdict is Verdict.HOLDS for claim in ended)
    promoted, drawn = under([claim.candidate for claim in found.claims]), under(found.drawn)
    return Hits(scale, len(ended), holding, *promoted, *drawn)
