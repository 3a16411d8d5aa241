"""A race: reference architectures measured side by side in one lab, each with several seeds.

All are trained on the same tokens in the same order and answer the same questions; runs differ in the
initialisation. So a run of one architecture has no partner among those of another, and differences are
between means, with the variance of a run moderated over all that race: each architecture by its own runs, as
far as those say more than the others do (paper, tables 3 and 4, which show one run of each and no noise).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from statistics import fmean

import msgspec

from asi_lab.lab import Store
from asi_lab.records import BaselineRun, Evaluation, TaskResult
from asi_lab.scoring import fitness
from asi_lab.scoring.baselines import pooled, t_quantile
from asi_lab.scoring.moderation import of_difference, prior_of
from asi_lab.settings import Settings


class Figure(msgspec.Struct, frozen=True):
    """A mean over the runs of one architecture. `difference` is to the first that races and `interval` half
    of its 95 % interval, None for the first itself and where no architecture has two runs. `sd` is the
    architecture's own, of one run, moderated by the others'."""

    mean: float
    difference: float | None
    interval: float | None
    sd: float | None = None

    @property
    def beyond_noise(self) -> bool:
        """Whether the difference is beyond chance (two-sided t-test at 5 %)."""
        if self.difference is None or self.interval is None:
            return False
        return abs(self.difference) > self.interval


class Lane(msgspec.Struct, frozen=True):
    """One architecture. `loss` in nats per token; `benchmark` is the mean over tasks of the relative gain
    over the first that races; `average` is the mean score of the tasks where higher is better, None without
    one."""

    architecture: str
    runs: int
    loss: Figure
    benchmark: Figure
    tasks: dict[str, Figure]
    average: Figure | None
    params: int
    tokens_per_second: float


class Race(msgspec.Struct, frozen=True):
    """The lanes in the order asked for, those without a run left out. `noise` has the sd of one run in each
    figure (`loss`, `benchmark`, `average`, tasks by name), pooled over the lanes; it is empty where no lane
    has two runs. `tasks` tells what the scores are."""

    preset: str
    seeds: int
    lanes: tuple[Lane, ...]
    noise: dict[str, float]
    tasks: tuple[TaskResult, ...]


def runs(architectures: Sequence[str], seeds: int) -> list[tuple[str, int]]:
    """The runs of a race, seed by seed: who cuts it off has as many of each."""
    return [(name, index) for index in range(seeds) for name in dict.fromkeys(architectures)]


def read(store: Store, settings: Settings, architectures: Sequence[str], seeds: int) -> Race:
    """What the lab's finished runs say; further seeds that the lab has are left out."""
    wanted = set(runs(architectures, seeds))
    found = [run for run in store.baselines() if (run.architecture, run.seed_index) in wanted]
    groups = {
        name: [run for run in found if run.architecture == name] for name in dict.fromkeys(architectures)
    }
    return _compared(settings, seeds, {name: group for name, group in groups.items() if group})


def _compared(settings: Settings, seeds: int, groups: dict[str, list[BaselineRun]]) -> Race:
    if not groups:
        return Race(settings.preset, seeds, (), {}, ())
    measured = {name: [run.evidence.measured for run in group] for name, group in groups.items()}
    first = next(iter(measured.values()))
    reference = fitness.reference_of(first, settings.fitness.scale)
    rising = [task.task for task in first[0].tasks if task.higher_is_better]
    kinds: dict[str, Callable[[Evaluation], float]] = {
        "loss": lambda e: e.loss,
        "benchmark": lambda e: fmean(fitness.task_gain(task, reference) for task in e.tasks),
    }
    if rising:
        kinds["average"] = lambda e: fmean(task.score for task in e.tasks if task.task in rising)
    kinds |= {task.task: operator.methodcaller("score_of", task.task) for task in first[0].tasks}

    values = {kind: [[of(e) for e in group] for group in measured.values()] for kind, of in kinds.items()}
    freedom = sum(len(group) - 1 for group in measured.values())
    noise = {kind: pooled(lists) for kind, lists in values.items()} if freedom else {}
    figures = {kind: _figures(lists) for kind, lists in values.items()}

    lanes = []
    for lane, (name, group) in enumerate(groups.items()):
        trainings = [run.evidence.training for run in group if run.evidence.training is not None]
        lanes.append(
            Lane(
                architecture=name,
                runs=len(group),
                loss=figures["loss"][lane],
                benchmark=figures["benchmark"][lane],
                tasks={task.task: figures[task.task][lane] for task in first[0].tasks},
                average=figures["average"][lane] if rising else None,
                params=trainings[0].params,
                tokens_per_second=fmean(training.tokens_per_second for training in trainings),
            )
        )
    tasks = tuple(msgspec.structs.replace(task, metrics={}, curve=(), seconds=0.0) for task in first[0].tasks)
    return Race(settings.preset, seeds, tuple(lanes), noise, tasks)


def _figures(lists: Sequence[Sequence[float]]) -> list[Figure]:
    """One figure for each list of values."""
    first, prior = lists[0], prior_of(lists)
    same = 0.0 if any(len(values) > 1 for values in lists) else None  # no run differs from its twins
    found = [Figure(fmean(first), None, None, prior.moderated(first).sd if prior else None)]
    for values in lists[1:]:
        mean, interval, sd = fmean(values), same, None
        if prior is not None:
            spread, sd = of_difference(values, first, prior), prior.moderated(values).sd
            interval = t_quantile(0.975, spread.freedom) * spread.sd
        found.append(Figure(mean, mean - fmean(first), interval, sd))
    return found
