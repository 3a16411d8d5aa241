"""How much one run varies, by architecture: python benchmarks/noise.py [--lab LAB]

Reads the finished runs at micro (`runs.py noise` and `pairs`): the sd of each reference's loss with its 95 %
interval, on one order of the data and over orders; the prior of variances fitted over all; what one run must
be under the bar to win, by pooled and by moderated noise, with DeltaNet and without; and whether runs of one
index are alike between architectures. With --lab also how many wins of a search that noise makes.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
from measuring import Run, by_architecture, finished
from numpy.typing import NDArray

from asi_lab.lab import Lab, Store
from asi_lab.records import SEED_ID, TUNING_SEED, CandidateState
from asi_lab.scoring.baselines import ARCHITECTURES, TITLES, Baselines
from asi_lab.scoring.statistics import EXACT, Spread, pooled, prior_of, sd_interval, t_quantile
from asi_lab.settings import BaselineSettings

LEAST = 5
"""Runs of an architecture that its own sd is shown from."""
MANY = 20
"""Pairs of runs that a single correlation is shown from."""
DRAWS = 2000
FREEDOM = BaselineSettings().noise_freedom

Losses = Mapping[str, Sequence[float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lab", type=Path, help="a lab that has been searched")
    lab = parser.parse_args().lab
    runs = [run for run in finished() if run.wanted.scale == "micro" and not run.wanted.changes]
    runs = [
        run
        for run in runs
        if run.wanted.architecture in TITLES and run.wanted.index < TUNING_SEED and not run.wanted.probes
    ]
    fixed = by_architecture(run for run in runs if run.wanted.order == 0)
    varied = by_architecture(run for run in runs if run.wanted.order == run.wanted.index + 1)
    spreads(fixed, varied)
    for name, found in (("one order", fixed), ("orders varied", varied)):
        losses = {key: [run.loss for run in group] for key, group in found.items() if len(group) >= LEAST}
        if len(losses) > 1:
            prior(name, losses)
            margins(losses)
    pairs(fixed, "one order of the data")
    pairs(varied, "the same eight orders")
    if lab is not None:
        wins(lab)


def spreads(fixed: Mapping[str, list[Run]], varied: Mapping[str, list[Run]]) -> None:
    print("\n## The sd of one run\n")
    print("| architecture | runs | mean loss | sd, one order (95 %) | runs | sd, orders varied (95 %) |")
    print("|---|---:|---:|---|---:|---|")
    means = {name: fmean(run.loss for run in group) for name, group in fixed.items()}
    for name in sorted(means, key=lambda name: means[name]):
        cells = [_spread([run.loss for run in group.get(name, [])]) for group in (fixed, varied)]
        (runs, one), (orders, several) = cells
        print(f"| {TITLES[name]} | {runs} | {means[name]:.4f} | {one} | {orders} | {several} |")


def _spread(losses: Sequence[float]) -> tuple[str, str]:
    if len(losses) < LEAST:
        return str(len(losses)), ""
    low, high = sd_interval(Spread(sd := stdev(losses), len(losses) - 1))
    return str(len(losses)), f"{sd:.4f} ({low:.4f}-{high:.4f})"


def prior(name: str, losses: Losses) -> None:
    found = prior_of([*losses.values()], FREEDOM)
    assert found is not None
    freedom = f"{found.freedom:.1f}" if found.freedom < EXACT else "infinite: they vary alike"
    print(
        f"\n{name}: {len(losses)} architectures, {found.seen} degrees of freedom; one run of another one has "
        f"an sd of {math.sqrt(found.variance):.4f} with d0 = {freedom}; "
        f"slope of the log variance over the loss {found.slope:.2f} (0: within chance)"
    )


def margins(losses: Losses) -> None:
    """Of one run against the mean of the best reference's."""
    bar = min(losses, key=lambda name: fmean(losses[name]))
    print(f"\nOne run must be this much under the mean of {TITLES[bar]} to beat it at 5 %:\n")
    print("| noise | of all | without DeltaNet |")
    print("|---|---:|---:|")
    others = {name: group for name, group in losses.items() if name != ARCHITECTURES[0]}
    print(f"| pooled | {_pooled(losses, bar):.4f} | {_pooled(others, bar):.4f} |")
    print(f"| moderated | {_moderated(losses, bar):.4f} | {_moderated(others, bar):.4f} |")


def _pooled(losses: Losses, bar: str) -> float:
    freedom = sum(len(group) - 1 for group in losses.values())
    return t_quantile(0.95, freedom) * pooled([*losses.values()]) * math.sqrt(1 + 1 / len(losses[bar]))


def _moderated(losses: Losses, bar: str) -> float:
    found = prior_of([*losses.values()], FREEDOM)
    assert found is not None
    return found.of_difference([fmean(losses[bar])], losses[bar]).margin()


def pairs(groups: Mapping[str, list[Run]], what: str) -> None:
    """Correlation between architectures of runs that share what is around the layers."""
    found = {
        name: {run.wanted.index: run.loss for run in group}
        for name, group in groups.items()
        if len(group) >= LEAST
    }
    rows = []
    for first, second in itertools.combinations(found, 2):
        common = sorted(found[first].keys() & found[second].keys())
        if len(common) >= LEAST:
            values = np.array([[found[name][index] for index in common] for name in (first, second)])
            rows.append((first, second, len(common), *_correlation(values)))
    if not rows:
        return
    print(f"\n## Are runs of one index alike? On {what}\n")
    if any(row[2] >= MANY for row in rows):
        print("| architectures | pairs | correlation (95 %, bootstrap) |")
        print("|---|---:|---|")
    for first, second, count, r, low, high in rows:
        if count >= MANY:
            print(f"| {TITLES[first]}, {TITLES[second]} | {count} | {r:+.2f} ({low:+.2f} to {high:+.2f}) |")
    correlations = sorted(row[3] for row in rows)
    print(
        f"\nAll {len(rows)} pairs of architectures with {LEAST} or more: mean {fmean(correlations):+.2f}, "
        f"from {correlations[0]:+.2f} to {correlations[-1]:+.2f}."
    )


def _correlation(values: NDArray[np.float64]) -> tuple[float, float, float]:
    rng, count = np.random.default_rng(0), values.shape[1]
    with np.errstate(invalid="ignore"):  # draws of one pair alone
        drawn = [np.corrcoef(values[:, rng.integers(count, size=count)])[0, 1] for _ in range(DRAWS)]
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return float(np.corrcoef(values)[0, 1]), float(low), float(high)


def wins(path: Path) -> None:
    """Of a search, by the pooled noise of its first two references and by moderated noise."""
    lab = Lab(path)
    with Store.open_readonly(lab.store) as store:
        known = Baselines(lab.settings(), store.baselines())
        done = [c for c in store.candidates() if c.id != SEED_ID and c.state is CandidateState.DONE]
    losses = [c.loss for c in done if c.loss is not None]
    both = {name: [run.loss for run in known.evaluations(name)] for name in ARCHITECTURES}
    print(f"\n## Wins of {len(losses)} candidates in {path.name}; {0.05 * len(losses):.1f} by luck alone\n")
    print("| against | margin, pooled | wins | margin, moderated | wins |")
    print("|---|---:|---:|---:|---:|")
    for name in known.names:
        theirs = [run.loss for run in known.evaluations(name)]
        cells = []
        for margin in (_pooled(both | {name: theirs}, name), known.margin(name)):
            cells.append(f"{margin:.4f} | {sum(fmean(theirs) - loss > margin for loss in losses)}")
        print(f"| {TITLES[name]} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
