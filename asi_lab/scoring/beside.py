"""What fresh runs gave beside the claims: tasks, probes, the paper's figures, other references. Nothing of it
is claimed: each interval is of one figure alone."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

import msgspec

from asi_lab.data import suites
from asi_lab.lab import Store, fresh, trial_label
from asi_lab.records import Evaluation
from asi_lab.scoring.statistics import prior_of
from asi_lab.scoring.verification import Claim, Verification


class Beside(msgspec.Struct, frozen=True):
    """One figure of the fresh runs: means of candidate and bar, and the 95 % interval of what the candidate
    has more; None where no two runs differ. `better` is the sign of a gain."""

    name: str
    candidate: float
    bar: float
    better: int
    interval: tuple[float, float] | None


def of_tasks(store: Store, found: Verification, claim: Claim, rung: str = "") -> list[Beside]:
    """What the fresh runs of a claim gave in tasks and probes, beside those of the bar. Nothing of it is
    claimed: each interval is of one figure alone."""
    counted = [run for run in fresh.runs(store, rung) if not run.is_tuning and not run.failure]

    def of(who: str, rate: float | None, count: int) -> list[Evaluation]:
        return [run.evidence.measured for run in counted if (run.who, run.rate) == (who, rate)][:count]

    mine = of(trial_label(claim.candidate), claim.rate, claim.runs)
    bar = of(found.terms.bar, found.bar_rate, found.bar_runs)
    if not mine or not bar:
        return []
    lines = []
    for task in mine[0].tasks:
        own, theirs = ([e.score_of(task.task) for e in group] for group in (mine, bar))
        lines.append(_beside(task.task, 1 if task.higher_is_better else -1, own, theirs, found.terms.freedom))
    return lines + _as_the_paper(mine, bar, found.terms.freedom)


def _as_the_paper(mine: Sequence[Evaluation], bar: Sequence[Evaluation], freedom: float) -> list[Beside]:
    """The figures that the paper reads of its benchmarks, and the mean accuracy of each of its blocks that is
    there as a whole, as in table 1."""
    lines = []
    for task in mine[0].tasks:
        for metric in task.reported:
            every = [[e.result_of(task.task).metrics.get(metric) for e in group] for group in (mine, bar)]
            own, theirs = ([value for value in values if value is not None] for values in every)
            if len(own) == len(mine) and len(theirs) == len(bar):
                better = -1 if metric.endswith("perplexity") else 1
                lines.append(_beside(f"{task.task} {metric}", better, own, theirs, freedom))
    for suite in suites.BLOCKS:
        means = [[_mean_accuracy(e, suite) for e in group] for group in (mine, bar)]
        own, theirs = ([value for value in values if value is not None] for values in means)
        if len(own) == len(mine) and len(theirs) == len(bar):
            lines.append(_beside(f"{suite}, mean accuracy", 1, own, theirs, freedom))
    return lines


def _mean_accuracy(evaluation: Evaluation, suite: str) -> float | None:
    """The mean accuracy of a block of the paper; None where it is not there as a whole."""
    rates = {task.task: task.accuracy for task in evaluation.tasks}
    values = [rates.get(name) for name in suites.BLOCKS[suite]]
    known = [value for value in values if value is not None]
    return fmean(known) if len(known) == len(values) else None


def of_references(found: Verification, claim: Claim) -> list[Beside]:
    """The fresh losses of a claim beside those of the references, those at the family's bar left out."""
    mine, freedom = found.losses[trial_label(claim.candidate)], found.terms.freedom
    theirs = ((name, found.losses.get(name, ())) for name in found.terms.beside)
    return [_beside(name, -1, mine, losses, freedom) for name, losses in theirs if mine and losses]


def _beside(name: str, better: int, mine: Sequence[float], bar: Sequence[float], freedom: float) -> Beside:
    prior, difference = prior_of([mine, bar], freedom, follow_mean=False), fmean(mine) - fmean(bar)
    interval = None
    if prior is not None:
        half = prior.of_difference(mine, bar).margin(0.025)
        interval = difference - half, difference + half
    return Beside(name, fmean(mine), fmean(bar), better, interval)
