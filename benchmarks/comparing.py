"""How often a lie in the full rows passes the comparison with bare prefixes, and what it gains:
python benchmarks/comparing.py

Simulated with known truth: rows claim more than the prefixes give at a share of all positions, so that the
mean loss is lower by a share of itself. Positions are drawn by the scorer's own hand, and what it does with
the differences is what is done here.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from asi_lab.engineer.supervise import DRAWN
from asi_lab.engineer.trials import MANY
from asi_lab.scorer.compare import LEAK_NATS, drawn, is_rounding

POSITIONS = 32_768
LOSS = 4.4
GAINS = (0.002, 0.01, 0.05)
SHARES = (0.001, 0.002, 0.005, 0.01, 0.05)
SMALL = (0.001, 0.005, 0.02)
HONEST = 3e-6
DEEPEST = 10.0
"""Nats that a model loses at a token at most, more or less: no lie gains more there."""
TIMES = 2000


def missed(share: float, gain: float, asked: int) -> float:
    """How often none of the positions that lie is drawn, where lies are large enough to be seen."""
    lying = round(share * POSITIONS)
    assert gain * LOSS / share > LEAK_NATS
    return float(np.mean([drawn(POSITIONS, asked).min() >= lying for _ in range(TIMES)]))


def published(lie: float, asked: int) -> tuple[float, float]:
    """Mean and standard deviation of the gain that is left of a lie of so many nats at half of all positions,
    too small at each for a leak."""
    truth = np.random.default_rng(0).normal(0, HONEST, POSITIONS)
    found = truth - lie * (np.arange(POSITIONS) % 2)
    claimed = -float(found.mean())
    left = []
    for _ in range(TIMES):
        sample = found[drawn(POSITIONS, asked)]
        left.append(claimed + (0.0 if is_rounding(sample) else float(sample.mean())))
    return float(np.mean(left)), float(np.std(left))


def main() -> None:
    counts = (DRAWN.loss_positions, MANY)
    print(f"{POSITIONS:,} positions of a loss of {LOSS}; each cell is {TIMES:,} simulated candidates\n")
    print("| gain | hidden in | nats at each | " + " | ".join(f"missed with {n:,}" for n in counts) + " |")
    print("|---:|---:|---:|" + "---:|" * len(counts))
    for gain in GAINS:
        for share in (share for share in SHARES if gain * LOSS / share < DEEPEST):
            cells = [f"{missed(share, gain, n):.2%}" for n in counts]
            print(f"| {gain:.1%} | {share:.1%} | {gain * LOSS / share:.2g} | {' | '.join(cells)} |")
    print("\n| lie at half of all positions | gain claimed | left, mean | left, sd |\n|---:|---:|---:|---:|")
    for lie in SMALL:
        mean, sd = published(lie, DRAWN.loss_positions)
        print(f"| {lie} nats | {lie / 2:.4f} nats | {mean:+.6f} | {sd:.6f} |")


if __name__ == "__main__":
    main()
