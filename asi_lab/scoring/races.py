"""A race: reference architectures measured side by side in one lab, each with several seeds.

All are trained on the same tokens in the same order and answer the same questions; runs differ in the
initialisation. So a run of one architecture has no partner among those of another, and differences are
between means, with the variance of a run moderated over all that race: each architecture by its own runs, as
far as those say more than the others do (paper, tables 3 and 4, which show one run of each and no noise).
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

import msgspec

from asi_lab.lab import Store
from asi_lab.records import TUNING_SEED, BaselineRun, CandidateState, Evaluation, Run, TaskResult
from asi_lab.scoring import fitness, tuning
from asi_lab.scoring.statistics import pooled, prior_of
from asi_lab.scoring.tuning import Tuning
from asi_lab.scoring.worth import accuracies
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
    one. `accuracies` are those of the tasks that have one, and `average_accuracy` their mean."""

    architecture: str
    runs: int
    loss: Figure
    benchmark: Figure
    tasks: dict[str, Figure]
    average: Figure | None
    params: int
    tokens_per_second: float
    accuracies: dict[str, Figure] = {}
    average_accuracy: Figure | None = None


class Failure(msgspec.Struct, frozen=True):
    """A run that failed, and why."""

    architecture: str
    seed_index: int
    rate: float
    why: str

    @property
    def words(self) -> str:
        """Which run, for messages."""
        return Run(self.architecture, self.seed_index, self.rate).words


class Race(msgspec.Struct, frozen=True):
    """The lanes in the order asked for, those without a run left out. `noise` has the sd of one run in each
    figure (`loss`, `benchmark`, `average`, tasks by name, and their accuracies by `accuracy_of`), pooled over
    the lanes; it is empty where no lane has two runs. `tasks` tells what the scores are.

    Where learning rates were tuned, `tuning` is what came out, `own` the race at each reference's own best
    rate; this one is at the preset's.
    """

    preset: str
    seeds: int
    lanes: tuple[Lane, ...]
    noise: dict[str, float]
    tasks: tuple[TaskResult, ...]
    failed: tuple[Failure, ...] = ()
    tuning: Tuning | None = None
    own: Race | None = None

    @property
    def is_whole(self) -> bool:
        """Whether no run failed that counts; one of tuning may."""
        return all(run.seed_index >= TUNING_SEED for run in self.failed)


Plan = Callable[[Sequence[BaselineRun]], list[Run]]
"""All runs that are wanted, the first first, as far as those that have ended tell."""

AGAIN = frozenset(
    {
        CandidateState.SLOW,
        CandidateState.TIMED_OUT,
        CandidateState.OUT_OF_MEMORY,
        CandidateState.INTERRUPTED,
    }
)
"""Failures that the machine may be to blame for: the next race tries such runs again."""


def may_pass(run: BaselineRun) -> bool:
    """Whether it failed in a way that another try may not."""
    return run.evidence.failure in AGAIN


def runs(architectures: Sequence[str], seeds: int) -> list[Run]:
    """The runs of a race, seed by seed: who cuts it off has as many of each."""
    return [Run(name, index) for index in range(seeds) for name in dict.fromkeys(architectures)]


def plan(architectures: Sequence[str], seeds: int, tuning_seeds: int = 0) -> Plan:
    """The plan of a race with `seeds` runs each; with `tuning_seeds` also at each reference's own best
    learning rate, which is found first."""
    names = list(dict.fromkeys(architectures))

    def wanted(ended: Sequence[BaselineRun]) -> list[Run]:
        if not tuning_seeds:
            return runs(names, seeds)
        best = tuning.best_rates(names, tuning_seeds, ended)
        rates = {name: dict.fromkeys((1.0, best.get(name) or 1.0)) for name in names}
        counted = [Run(*run[:2], rate) for run in runs(names, seeds) for rate in rates[run.architecture]]
        return tuning.wanted(names, tuning_seeds, ended) + counted

    return wanted


def due(wanted: Plan, ended: Sequence[BaselineRun]) -> list[Run]:
    """The runs of a plan that have not ended."""
    have = {run.run for run in ended}
    return [run for run in wanted(ended) if run not in have]


def read(
    store: Store, settings: Settings, architectures: Sequence[str], seeds: int, tuning_seeds: int = 0
) -> Race:
    """What the lab's runs say that have ended; further seeds that the lab has are left out."""
    names = list(dict.fromkeys(architectures))
    ended = store.reference_runs()
    wanted = set(plan(names, seeds, tuning_seeds)(ended))

    def at(rates: Mapping[str, float | None]) -> Race:
        counted = {Run(name, index, rate) for name, rate in rates.items() if rate for index in range(seeds)}
        found = [run for run in ended if run.run in counted and not run.failure]
        groups = {name: [run for run in found if run.architecture == name] for name in names}
        return _compared(settings, seeds, {name: group for name, group in groups.items() if group})

    if tuning_seeds:
        wanted |= {run.run for run in ended if run.architecture in names and run.run.is_tuning}
    failed = tuple(Failure(*run.run, run.failure) for run in ended if run.failure and run.run in wanted)
    race = msgspec.structs.replace(at(dict.fromkeys(names, 1.0)), failed=failed)
    if not tuning_seeds:
        return race
    own = at(tuning.best_rates(names, tuning_seeds, ended))
    losses = {lane.architecture: lane.loss.mean for lane in own.lanes}
    found = tuning.tuned(names, tuning_seeds, ended, settings.train.learning_rate, losses)
    return msgspec.structs.replace(race, tuning=found, own=own)


def _compared(settings: Settings, seeds: int, groups: dict[str, list[BaselineRun]]) -> Race:
    if not groups:
        return Race(settings.preset, seeds, (), {}, ())
    measured = {name: [run.evidence.measured for run in group] for name, group in groups.items()}
    first = next(iter(measured.values()))
    reference = fitness.reference_of(first, settings.fitness.scale)
    rising = [task.task for task in first[0].tasks if task.higher_is_better]
    kinds: dict[str, Callable[[Evaluation], float]] = {
        "loss": lambda e: e.loss,
        "benchmark": lambda e: fmean(fitness.weighed_gain(task, reference) for task in e.tasks),
    }
    if rising:
        kinds["average"] = lambda e: fmean(task.score for task in e.tasks if task.task in rising)
    kinds |= {task.task: operator.methodcaller("score_of", task.task) for task in first[0].tasks}
    every = [run for group in measured.values() for run in group]
    counted = {task.task: accuracies(every, task.task) for task in first[0].tasks}
    known = [task for task, found in counted.items() if found]
    if known:
        kinds[accuracy_of("average")] = lambda e: fmean(_accuracy(task, e) for task in known)
    kinds |= {accuracy_of(task): functools.partial(_accuracy, task) for task in known}

    values = {kind: [[of(e) for e in group] for group in measured.values()] for kind, of in kinds.items()}
    freedom = sum(len(group) - 1 for group in measured.values())
    noise = {kind: pooled(lists) for kind, lists in values.items()} if freedom else {}
    figures = {kind: _figures(lists, settings.baselines.noise_freedom) for kind, lists in values.items()}

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
                accuracies={task: figures[accuracy_of(task)][lane] for task in known},
                average_accuracy=figures[accuracy_of("average")][lane] if known else None,
            )
        )
    tasks = tuple(msgspec.structs.replace(task, metrics={}, curve=(), seconds=0.0) for task in first[0].tasks)
    return Race(settings.preset, seeds, tuple(lanes), noise, tasks)


def accuracy_of(task: str) -> str:
    """The name of a task's accuracy among the figures of a race."""
    return f"{task} accuracy"


def _accuracy(task: str, run: Evaluation) -> float:
    return accuracies([run], task)[0]


def _figures(lists: Sequence[Sequence[float]], freedom: float) -> list[Figure]:
    """One figure for each list of values; `freedom` is how alike variances are."""
    first, prior = lists[0], prior_of(lists, freedom)
    same = 0.0 if any(len(values) > 1 for values in lists) else None  # no run differs from its twins
    found = [Figure(fmean(first), None, None, prior.moderated(first).sd if prior else None)]
    for values in lists[1:]:
        mean, interval, sd = fmean(values), same, None
        if prior is not None:
            sd = prior.moderated(values).sd
            interval = prior.of_difference(values, first).margin(0.025)
        found.append(Figure(mean, mean - fmean(first), interval, sd))
    return found
