"""References at several learning rates: python benchmarks/rates.py [--scale SCALE] [NAME ...]

Reads the finished runs of `runs.py rates`: at half, one and two times the preset's rate, further while the
best lies at the edge, by the rules of `asi-lab race --tune`; and counted runs at own best rates. Prints the
table at each rate and the order of the references.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from statistics import fmean

import measuring
from measuring import Wanted

from asi_lab.lab.config import from_preset
from asi_lab.records import TUNING_SEED, BaselineRun, Evaluation, Evidence, Run
from asi_lab.scoring import references, tuning
from asi_lab.scoring.baselines import TITLES

COUNTED = 3
"""Runs of each at its own best rate, beside those of tuning."""


def wanted(names: Sequence[str], scale: str) -> list[Wanted]:
    """The runs of tuning as far as those that have ended tell, and the counted ones at the best rates that
    are known."""
    ended = known(scale)
    best = tuning.best_rates(names, tuning.LEAST_SEEDS, ended)
    counted = [
        Run(name, index, rate)
        for index in range(COUNTED)
        for name, found in best.items()
        for rate in dict.fromkeys((1.0, found))
        if found is not None and rate is not None
    ]
    rate_of = from_preset(scale).train.learning_rate
    return [
        Wanted(run.architecture, scale, run.seed_index, changes=_changes(run.rate, rate_of))
        for run in [*tuning.wanted(names, tuning.LEAST_SEEDS, ended), *counted]
    ]


def _changes(rate: float, preset: float) -> dict[str, float]:
    return {"train.learning_rate": rate * preset} if rate != 1.0 else {}


def known(scale: str) -> list[BaselineRun]:
    """Finished runs at a scale that differ from the preset in the learning rate at most."""
    preset = from_preset(scale).train.learning_rate
    found = []
    for run in measuring.finished():
        asked = run.wanted
        plain = not asked.order and not asked.probes
        if asked.scale == scale and plain and {*asked.changes} <= {"train.learning_rate"}:
            rate = asked.changes.get("train.learning_rate", preset) / preset
            evidence = Evidence(evaluation=Evaluation(run.loss, 0, ()))
            found.append(BaselineRun(asked.architecture, asked.index, evidence, rate))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="references; all by default")
    parser.add_argument("--scale", default="micro")
    given = parser.parse_args()
    names, runs = given.names or references.names(), known(given.scale)
    best = tuning.best_rates(names, tuning.LEAST_SEEDS, runs)
    preset, own = _means(dict.fromkeys(names, 1.0), runs), _means(best, runs)
    learning_rate = from_preset(given.scale).train.learning_rate
    found = tuning.tuned(names, tuning.LEAST_SEEDS, runs, learning_rate, own)
    heads = [f"×{rate.rate:g} ({rate.learning_rate:g})" for rate in found.rates]
    print(f"| architecture | {' | '.join(heads)} | lowest under ×1 | best |")
    print(f"|---|{'---:|' * (len(heads) + 2)}")
    for lane in found.lanes:
        cells = [_cell(lane.losses, rate.rate) for rate in found.rates]
        gain = "" if lane.gain is None else f"{lane.gain:.4f} ±{lane.error:.4f}"
        print(f"| {TITLES[lane.architecture]} | {' | '.join(cells)} | {gain} | {_rate(lane.best)} |")
    correlations = ("" if r.correlation is None else f"{r.correlation:.2f}" for r in found.rates)
    print(f"| rank correlation | {' | '.join(correlations)} | | |")
    print("\n| architecture | place at the preset's | loss | place at own best | loss | rate |")
    print("|---|---:|---:|---:|---:|---:|")
    for name in sorted(own, key=own.__getitem__):
        cells = [_place(name, preset), _place(name, own), _rate(best[name])]
        print(f"| {TITLES[name]} | {' | '.join(cells)} |")
    print(f"\n{sum(run.seed_index >= TUNING_SEED for run in runs)} runs of tuning.")


def _means(rates: Mapping[str, float | None], runs: Sequence[BaselineRun]) -> dict[str, float]:
    """Mean loss of each reference over its counted runs at that rate."""
    found = {}
    for name, rate in rates.items():
        counted = {Run(name, index, rate) for index in range(COUNTED)} if rate else set()
        losses = [run.evidence.measured.loss for run in runs if run.run in counted]
        if losses:
            found[name] = fmean(losses)
    return found


def _cell(losses: dict[float, float | None], rate: float) -> str:
    found = losses.get(rate)
    return "" if found is None else f"{found:.4f}"


def _rate(rate: float | None) -> str:
    return "" if rate is None else f"×{rate:g}"


def _place(name: str, losses: dict[str, float]) -> str:
    if name not in losses:
        return " | "
    return f"{1 + sorted(losses, key=losses.__getitem__).index(name)} | {losses[name]:.4f}"


if __name__ == "__main__":
    main()
