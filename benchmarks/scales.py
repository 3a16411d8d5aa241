"""Does the small scale foretell the larger one? python benchmarks/scales.py [--small micro] [--large mini]

Reads the finished runs of `runs.py scales`: for every architecture that was run at both scales the mean
figures, Spearman's rank correlation between the scales and the decision accuracy, the share of pairs of
architectures that the small scale orders as the large one does, both with 95 % bootstrap intervals over
architectures. Over all of them and over the better half, which DeltaNet's distance does not flatter.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

import numpy as np
from measuring import Run, finished
from numpy.typing import NDArray
from scipy.stats import spearmanr

from asi_lab.scoring.baselines import TITLES

DRAWS = 2000
LEAST = 6
"""Architectures that a correlation is shown from."""

Figures = NDArray[np.float64]
"""[2, N]: a figure of each architecture at the small scale and at the large one."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", default="micro")
    parser.add_argument("--large", default="mini")
    arguments = parser.parse_args()
    runs = [run for run in finished() if run.wanted.order == 0 and not run.wanted.changes]
    small, large = (grouped(runs, scale) for scale in (arguments.small, arguments.large))
    names = sorted(small.keys() & large.keys(), key=lambda name: fmean(r.loss for r in large[name]))
    if len(names) < LEAST:
        print(f"{len(names)} architectures were run at both scales; at least {LEAST} are needed")
        return
    print(f"\n| architecture | {arguments.small} | runs | {arguments.large} | runs |")
    print("|---|---:|---:|---:|---:|")
    for name in names:
        cells = [f"{fmean(r.loss for r in group[name]):.4f} | {len(group[name])}" for group in (small, large)]
        print(f"| {TITLES.get(name, name)} | {' | '.join(cells)} |")
    print("\n| figure | architectures | Spearman (95 %) | decision accuracy (95 %) |")
    print("|---|---:|---|---|")
    for title, figure in figures(small, large, names):
        for who, chosen in (("all", names), ("better half", names[: (len(names) + 1) // 2])):
            if len(chosen) >= LEAST:
                pairs = np.array([[figure(group[name]) for name in chosen] for group in (small, large)])
                cells = [interval(pairs, of) for of in (rank_correlation, decision_accuracy)]
                print(f"| {title}, {who} | {len(chosen)} | {' | '.join(cells)} |")


def grouped(runs: Sequence[Run], scale: str) -> dict[str, list[Run]]:
    found: dict[str, list[Run]] = {}
    for run in runs:
        if run.wanted.scale == scale and run.wanted.index < 2:
            found.setdefault(run.wanted.architecture, []).append(run)
    return found


def figures(
    small: Mapping[str, list[Run]], large: Mapping[str, list[Run]], names: Sequence[str]
) -> list[tuple[str, Callable[[list[Run]], float]]]:
    """The loss, and every task that both scales have."""
    common = {*small[names[0]][0].tasks} & {*large[names[0]][0].tasks}
    found: list[tuple[str, Callable[[list[Run]], float]]] = [
        ("held-out loss", lambda group: fmean(run.loss for run in group))
    ]
    for task in sorted(common):
        found.append((task, lambda group, task=task: fmean(run.tasks[task] for run in group)))  # type: ignore[misc]
    return found


def rank_correlation(pairs: Figures) -> float:
    return float(spearmanr(pairs[0], pairs[1]).statistic)


def decision_accuracy(pairs: Figures) -> float:
    same = [
        (pairs[0, i] - pairs[0, j]) * (pairs[1, i] - pairs[1, j])
        for i, j in itertools.combinations(range(pairs.shape[1]), 2)
    ]
    return fmean(0.5 if product == 0 else float(product > 0) for product in same)


def interval(pairs: Figures, of: Callable[[Figures], float]) -> str:
    """A figure with its interval over architectures drawn again."""
    rng, count = np.random.default_rng(0), pairs.shape[1]
    drawn = []
    while len(drawn) < DRAWS:
        chosen = rng.integers(count, size=count)
        if len({*chosen}) >= 3:
            drawn.append(of(pairs[:, chosen]))
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return f"{of(pairs):.2f} ({low:.2f} to {high:.2f})"


if __name__ == "__main__":
    main()
