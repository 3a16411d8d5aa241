"""Intervals and wins among architectures whose runs vary differently, with the truth known.

    python benchmarks/moderation.py [REPETITIONS]

Each repetition draws a true standard deviation for every architecture and a few runs of each. First it asks
for the 95 % interval of the difference between two of them: by one variance pooled over all, by the two alone
(Welch), and by moderated variances; right is a coverage of 95 %, also where the two vary least and where they
vary most. Then for the verdict on one run of another architecture against the best of three references, as a
lab begins with them: right are 5 % of wins where it is no better.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean, variance

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from asi_lab.scoring import statistics
from asi_lab.scoring.statistics import pooled, t_quantile
from asi_lab.settings import BaselineSettings

SD = 0.02
MEASURED = (0.042, 0.015, 0.009)
"""Nats, of ten runs each at micro: DeltaNet, Gated DeltaNet, FusionGatedFIRNet."""

FREEDOM = BaselineSettings().noise_freedom
"""What a lab takes variances to be alike by."""

GAIN = 0.03
"""Nats by which a better run is better: what a mutation may bring at micro."""

Groups = Sequence[Sequence[float]]


def drawn(freedom: float) -> Callable[[np.random.Generator, int], np.ndarray]:
    """True variances about `SD` squared, with a prior of these degrees of freedom."""
    if math.isinf(freedom):
        return lambda rng, count: np.full(count, SD**2)
    return lambda rng, count: SD**2 * freedom / rng.chisquare(freedom, count)


def as_measured(rng: np.random.Generator, count: int) -> np.ndarray:
    return np.array(MEASURED * 3)[:count] ** 2


def one_is_wild(rng: np.random.Generator, count: int) -> np.ndarray:
    return np.array([(5 * SD) ** 2] + [SD**2] * (count - 1))


TRUTHS = {
    "all vary alike": drawn(math.inf),
    "prior of 4 degrees": drawn(4.0),
    "prior of 2 degrees": drawn(2.0),
    "as measured at micro": as_measured,
    "one varies five times as much": one_is_wild,
}


def by_pooling(groups: Groups, a: int, b: int) -> float:
    freedom = sum(len(group) - 1 for group in groups)
    spread = pooled(groups) * math.sqrt(1 / len(groups[a]) + 1 / len(groups[b]))
    return t_quantile(0.975, freedom) * spread


def by_the_two(groups: Groups, a: int, b: int) -> float:
    parts = [(variance(groups[i]) / len(groups[i]), len(groups[i]) - 1) for i in (a, b)]
    whole = sum(part for part, _ in parts)
    freedom = whole**2 / sum(part**2 / own for part, own in parts)
    return t_quantile(0.975, freedom) * math.sqrt(whole)


def by_moderation(groups: Groups, a: int, b: int) -> float:
    prior = statistics.prior_of(groups, FREEDOM)
    assert prior is not None
    return prior.of_difference(groups[a], groups[b]).margin(0.025)


METHODS = {"pooled": by_pooling, "the two alone": by_the_two, "moderated": by_moderation}


def main() -> None:
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    print(f"{repetitions:,} repetitions; coverage of any two / of the two that vary least / of the two that")
    print("vary most; then the mean width over that of known variances\n")
    print("| truth | architectures | runs | " + " | ".join(METHODS) + " |")
    print("|---|---:|---:|" + "---|" * len(METHODS))
    for truth, variances in TRUTHS.items():
        for count, runs in ((3, 3), (8, 3), (8, 5), (8, 10)):
            cells = simulated(variances, count, runs, repetitions)
            print(f"| {truth} | {count} | {runs} | " + " | ".join(cells) + " |", flush=True)
    print(f"\nOne run against the third of three references; false wins / wins of a run that is {GAIN} nats")
    print("better / mean margin in nats\n")
    print("| truth | runs of each | pooled over the first two | pooled over all | moderated |")
    print("|---|---:|---|---|---|")
    for truth, variances in TRUTHS.items():
        for runs in (3, 5, 8):
            cells = verdicts(variances, runs, repetitions)
            print(f"| {truth} | {runs} | {' | '.join(cells)} |", flush=True)


def simulated(
    variances: Callable[[np.random.Generator, int], np.ndarray], count: int, runs: int, repetitions: int
) -> list[str]:
    rng = np.random.default_rng([count, runs])
    covered: dict[str, list[list[bool]]] = {name: [[], [], []] for name in METHODS}
    widths: dict[str, list[float]] = {name: [] for name in METHODS}
    for _ in range(repetitions):
        true = variances(rng, count)
        groups = [rng.normal(0.0, math.sqrt(one), runs).tolist() for one in true]
        order = np.argsort(true, kind="stable")
        pairs = (tuple(rng.choice(count, 2, replace=False)), tuple(order[:2]), tuple(order[-2:]))
        for name, method in METHODS.items():
            for place, (a, b) in enumerate(pairs):
                half = method(groups, int(a), int(b))
                covered[name][place].append(abs(fmean(groups[a]) - fmean(groups[b])) <= half)
                if place == 0:
                    widths[name].append(half / (1.96 * math.sqrt((true[a] + true[b]) / runs)))
    return [
        " / ".join(f"{fmean(hits):.1%}" for hits in covered[name]) + f"; {fmean(widths[name]):.2f}"
        for name in METHODS
    ]


def verdicts(
    variances: Callable[[np.random.Generator, int], np.ndarray], runs: int, repetitions: int
) -> list[str]:
    rng = np.random.default_rng(runs)
    found: dict[str, list[tuple[bool, bool, float]]] = {}
    for _ in range(repetitions):
        true = variances(rng, 4)
        candidate = true[3] if variances is not as_measured else rng.choice(true[1:3])
        groups = [rng.normal(0.0, math.sqrt(one), runs).tolist() for one in true[:3]]
        under = fmean(groups[2]) - rng.normal(0.0, math.sqrt(candidate))
        for name, margin in margins(groups, fmean(groups[2]) - under).items():
            found.setdefault(name, []).append((under > margin, under + GAIN > margin, margin))
    return [
        f"{fmean(one[0] for one in each):.1%} / {fmean(one[1] for one in each):.0%} / "
        f"{fmean(one[2] for one in each):.3f}"
        for each in found.values()
    ]


def margins(groups: Groups, run: float) -> dict[str, float]:
    """How far under the mean of the third group one run must lie to win at 5 %."""
    found = {}
    for name, pool in (("the first two", groups[:2]), ("all", groups)):
        freedom = sum(len(group) - 1 for group in pool)
        spread = pooled(pool) * math.sqrt(1 + 1 / len(groups[2]))
        found[name] = t_quantile(0.95, freedom) * spread
    prior = statistics.prior_of(groups, FREEDOM)
    assert prior is not None
    return found | {"moderated": prior.of_difference([run], groups[2]).margin()}


if __name__ == "__main__":
    main()
