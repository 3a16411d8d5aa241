"""Does the small scale foretell the larger one? python benchmarks/scales.py [--small micro] [--large mini]

Reads the finished runs of `runs.py scales`: for every architecture that was run at both scales the mean
figures (loss, every task that both have, and the two measured parts of the fitness together; a probe is the
same model at every scale, so with one seed it gives the same),
Spearman's rank correlation between the scales and the decision accuracy, the share of pairs of architectures
that the small scale orders as the large one does, both with 95 % bootstrap intervals over architectures. Over
all of them and over the better half by the large scale, which DeltaNet's distance does not flatter.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

import numpy as np
from measuring import Run, finished
from numpy.typing import NDArray

from asi_lab.data.probes import title_of
from asi_lab.lab.config import from_preset
from asi_lab.records import Evaluation, TaskResult
from asi_lab.scoring import fitness
from asi_lab.scoring.baselines import SEED_ARCHITECTURE, TITLES
from asi_lab.scoring.statistics import redrawn, spearman

LEAST = 6
"""Architectures that a correlation is shown from."""

Figures = NDArray[np.float64]
"""[2, N]: a figure of each architecture at the small scale and at the large one."""

Groups = Mapping[str, list[Run]]
"""The runs at one scale, by architecture."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", default="micro")
    parser.add_argument("--large", default="mini")
    arguments = parser.parse_args()
    scales = arguments.small, arguments.large
    found = finished()
    both = [grouped(found, scale) for scale in scales]
    names = sorted(both[0].keys() & both[1].keys(), key=lambda name: fmean(r.loss for r in both[1][name]))
    if len(names) < LEAST or SEED_ARCHITECTURE not in names:
        print(f"{len(names)} architectures were run at both scales; at least {LEAST} are needed")
        return
    print(f"\n| architecture | {arguments.small} | runs | {arguments.large} | runs |")
    print("|---|---:|---:|---:|---:|")
    for name in names:
        cells = [f"{fmean(r.loss for r in group[name]):.4f} | {len(group[name])}" for group in both]
        print(f"| {TITLES.get(name, name)} | {' | '.join(cells)} |")
    print("\n| figure | architectures | Spearman (95 %) | decision accuracy (95 %) |")
    print("|---|---:|---|---|")
    for title, values in figures(*zip(scales, both, strict=True), names=names).items():
        for who, count in (("all", len(names)), ("better half", (len(names) + 1) // 2)):
            if count >= LEAST:
                cells = [interval(values[:, :count], of) for of in (spearman, decision_accuracy)]
                print(f"| {title}, {who} | {count} | {' | '.join(cells)} |")


def grouped(runs: Sequence[Run], scale: str) -> dict[str, list[Run]]:
    found: dict[str, list[Run]] = {}
    for run in runs:
        asked = run.wanted
        if (
            asked.scale == scale
            and asked.probes
            and asked.index < 2
            and not asked.order
            and not asked.changes
        ):
            found.setdefault(asked.architecture, []).append(run)
    return found


def figures(*scales: tuple[str, Groups], names: Sequence[str]) -> dict[str, Figures]:
    """By title: loss, tasks and probes as means over runs, and the measured part of the fitness."""
    both = set.intersection(*({*groups[names[0]][0].tasks} for _, groups in scales))
    common = {task for task in both if title_of(task) is None}
    wanted: dict[str, Callable[[Run], float]] = {"held-out loss": lambda run: run.loss}
    wanted |= {task: lambda run, task=task: run.tasks[task] for task in sorted(common)}  # type: ignore[misc]
    found = {
        title: np.array([[fmean(map(of, groups[name])) for name in names] for _, groups in scales])
        for title, of in wanted.items()
    }
    found["fitness without the judge"] = np.array([measured_parts(*scale, names) for scale in scales])
    return found


def measured_parts(scale: str, groups: Groups, names: Sequence[str]) -> list[float]:
    """The loss part and the benchmark part together, against DeltaNet at that scale."""
    evaluations = {name: [_evaluation(run) for run in groups[name]] for name in names}
    reference = fitness.reference_of(evaluations[SEED_ARCHITECTURE], from_preset(scale).fitness.scale)
    return [fmean(sum(fitness.parts(run, reference)) for run in evaluations[name]) for name in names]


def _evaluation(run: Run) -> Evaluation:
    tasks = tuple(
        TaskResult(name, score, "", bool(title_of(name)), 0.0, 1) for name, score in run.tasks.items()
    )
    return Evaluation(run.loss, 0, tasks)


def decision_accuracy(pairs: Figures) -> float:
    """Pairs of one architecture with itself, as the bootstrap draws them, are none."""
    same = [
        (pairs[0, i] - pairs[0, j]) * (pairs[1, i] - pairs[1, j])
        for i, j in itertools.combinations(range(pairs.shape[1]), 2)
        if (pairs[:, i] != pairs[:, j]).any()
    ]
    return fmean(0.5 if product == 0 else float(product > 0) for product in same)


def interval(pairs: Figures, of: Callable[[Figures], float]) -> str:
    """A figure with its interval over architectures drawn again."""
    low, high = redrawn(pairs, of)
    return f"{of(pairs):.2f} ({low:.2f} to {high:.2f})"


if __name__ == "__main__":
    main()
