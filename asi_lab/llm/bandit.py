"""Which of several models plans the next candidate: a cost-aware bandit over what their candidates became.

A candidate earns its model a little once it passes the checks, and more the surer it beats its parent:

    reward = 0.2 for a candidate that was trained + 0.8 Phi(gain in merit over the parent / noise)
    index  = mean reward + sqrt(2 ln N / n) / 4 - cost_weight * share of the dearest model's dollars

The state is the lab's own records, so it survives a kill and can be looked at: `asi-lab models`. A candidate
that has not ended counts as a pull without a reward. UCB1: Auer et al. 2002, here with a quarter of its
width, since rewards spread over a quarter of [0, 1] or so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist

import msgspec

from asi_lab.lab.summary import Summary
from asi_lab.records import CandidateState

PASSED, GAINED, WIDTH = 0.2, 0.8, 0.25
UNTRAINED = frozenset(
    {
        CandidateState.DUPLICATE,
        CandidateState.REJECTED,
        CandidateState.BROKEN,
        CandidateState.LEAKING,
        CandidateState.SLOW,
        CandidateState.FORGED,
    }
)


class Arm(msgspec.Struct, frozen=True):
    """What one planner's candidates became. `dollars` is the mean for a candidate; `index` decides, the
    largest first, None before the first pull."""

    model: str
    pulls: int = 0
    trained: int = 0
    better: int = 0
    reward: float = 0.0
    dollars: float = 0.0
    index: float | None = None


def arms(
    names: Sequence[str],
    summaries: Sequence[Summary],
    dollars: Mapping[int, float],
    cost_weight: float,
) -> list[Arm]:
    """The state of the bandit after the candidates in `summaries`; `dollars` are by candidate."""
    by_id = {summary.id: summary for summary in summaries}
    found = []
    for name in names:
        own = [summary for summary in summaries if summary.model == name]
        gains = [_gain(summary, by_id) for summary in own]
        found.append(
            Arm(
                name,
                pulls=len(own),
                trained=sum(_is_trained(summary) for summary in own),
                better=sum(gain is not None and gain > 0 for gain in gains),
                reward=_mean([_reward(s, gain) for s, gain in zip(own, gains, strict=True)]),
                dollars=_mean([dollars.get(summary.id, 0.0) for summary in own]),
            )
        )
    pulls, dearest = sum(arm.pulls for arm in found), max((arm.dollars for arm in found), default=0.0)
    return [msgspec.structs.replace(arm, index=_index(arm, pulls, dearest, cost_weight)) for arm in found]


def choose(found: Sequence[Arm]) -> str:
    """The model to ask next: one that was never asked, else the largest index; the first of equals."""
    return max(found, key=lambda arm: math.inf if arm.index is None else arm.index).model


def _index(arm: Arm, pulls: int, dearest: float, cost_weight: float) -> float | None:
    if arm.pulls == 0:
        return None
    share = arm.dollars / dearest if dearest > 0 else 0.0
    return arm.reward + WIDTH * math.sqrt(2 * math.log(pulls) / arm.pulls) - cost_weight * share


def _reward(summary: Summary, gain: float | None) -> float:
    if not _is_trained(summary):
        return 0.0
    return PASSED + (GAINED * NormalDist().cdf(gain) if gain is not None else 0.0)


def _is_trained(summary: Summary) -> bool:
    return summary.state.is_terminal and summary.state not in UNTRAINED


def _gain(summary: Summary, by_id: Mapping[int, Summary]) -> float | None:
    """Merit over the parent's, in noise floors of a difference; None where there is none."""
    parent = by_id.get(summary.parent) if summary.parent is not None else None
    if summary.merit is None or parent is None or parent.merit is None:
        return None
    noise = (summary.fitness_noise or 0.0) * 2**0.5
    return (summary.merit - parent.merit) / noise if noise > 0 else 0.0


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
