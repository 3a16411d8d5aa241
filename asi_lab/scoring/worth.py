"""What a task is worth in a lab: whether it tells architectures apart, or only seeds.

A task is worth something where architectures differ more than the runs of one do. Both are measured on the
references that have several seeds; what the seeds alone would make the means differ by is taken out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from statistics import fmean, variance

import msgspec

from asi_lab.records import BaselineRun, Evaluation
from asi_lab.scoring.statistics import pooled

LOSS = "held-out loss"
ACCURACY = "accuracy"
LEAST_RATIO = 2.0
"""A task under this ratio tells seeds, rather than architectures."""


class Worth(msgspec.Struct, frozen=True):
    """One task in one form, or the held-out loss (nats per token), over `architectures` with `runs` in all.
    `score_name` is that of the score that enters the fitness, or accuracy.

    `between_seeds` is the sd of one run, pooled; `between` the sd of the architectures' true means, the
    seeds' variance over n taken out, 0 where that leaves nothing; `ratio` the second over the first, None
    without noise. `decided` is the share of pairs of architectures that one seed orders as the mean of the
    others does (a half by chance). `chance` is the score of knowing nothing, `samples` how many questions
    were asked; both None for the loss. `seconds` is what one run took, None where that was not recorded.
    """

    task: str
    score_name: str
    architectures: int
    runs: int
    between_seeds: float
    between: float
    ratio: float | None
    decided: float
    chance: float | None = None
    samples: int | None = None
    seconds: float | None = None

    @property
    def tells_little(self) -> bool:
        """Whether its differences are mostly those of seeds."""
        return self.ratio is not None and self.ratio < LEAST_RATIO


def of_tasks(runs: Sequence[BaselineRun]) -> list[Worth]:
    """The loss and every task of the finished runs, best first, each task that has one followed by its
    accuracy; empty with fewer than two architectures that have two runs each."""
    groups: dict[str, list[Evaluation]] = {}
    for run in sorted(runs, key=lambda run: run.seed_index):
        if run.evidence.evaluation is not None:
            groups.setdefault(run.architecture, []).append(run.evidence.evaluation)
    several = {name: group for name, group in groups.items() if len(group) > 1}
    if len(several) < 2:
        return []
    found = [[worth(LOSS, "nats", {name: [one.loss for one in group] for name, group in several.items()})]]
    for task in next(iter(several.values()))[0].tasks:
        scores = {name: [one.score_of(task.task) for one in group] for name, group in several.items()}
        plain = worth(task.task, task.score_name, scores)
        seconds = fmean(one.result_of(task.task).seconds for group in several.values() for one in group)
        asked = {"chance": task.chance, "samples": task.samples, "seconds": seconds or None}
        forms = [msgspec.structs.replace(plain, **asked)]
        right = {name: accuracies(group, task.task) for name, group in several.items()}
        if all(right.values()):
            counted = worth(task.task, ACCURACY, right)
            chance = task.chance_accuracy
            forms.append(msgspec.structs.replace(counted, chance=chance, samples=task.samples))
        found.append(forms)
    found.sort(key=lambda forms: -(forms[0].ratio if forms[0].ratio is not None else math.inf))
    return [form for forms in found for form in forms]


def accuracies(runs: Sequence[Evaluation], task: str) -> list[float]:
    """A task's accuracy in each run; empty where not all have one."""
    found = [run.result_of(task).accuracy for run in runs]
    return [] if None in found else [value for value in found if value is not None]


def worth(task: str, score_name: str, scores: Mapping[str, Sequence[float]]) -> Worth:
    """The worth of one figure from its values in the runs of each architecture, at least two runs each of at
    least two architectures."""
    groups = list(scores.values())
    seeds = pooled(groups)
    by_luck = fmean(seeds**2 / len(group) for group in groups)
    between = math.sqrt(max(0.0, variance(fmean(group) for group in groups) - by_luck))
    return Worth(
        task=task,
        score_name=score_name,
        architectures=len(groups),
        runs=sum(map(len, groups)),
        between_seeds=seeds,
        between=between,
        ratio=between / seeds if seeds > 0 else None,
        decided=fmean(_agreements(groups)),
    )


def _agreements(groups: Sequence[Sequence[float]]) -> list[float]:
    """For each pair and each seed that both have: 1 where it orders them as the mean of the others does, else
    0; a half where either sees no difference."""
    found = []
    for first, second in combinations(groups, 2):
        for seed in range(min(len(first), len(second))):
            one = first[seed] - second[seed]
            rest = fmean(_without(first, seed)) - fmean(_without(second, seed))
            found.append(0.5 if one == 0 or rest == 0 else float((one > 0) == (rest > 0)))
    return found


def _without(values: Sequence[float], place: int) -> list[float]:
    return [value for at, value in enumerate(values) if at != place]
