"""Make the runs of a study: python benchmarks/runs.py noise|pairs|rates|scales [--workers N] [--only NAME...]

noise    every reference at micro with 8 seeds on one order of the data, and with 8 seeds on 8 orders
pairs    four references at micro with 24 seeds, for whether runs of one index are alike
rates    every reference at several learning rates of a scale, with seeds that count for nothing else
scales   references and grammar candidates at micro and mini, two seeds each

What is finished is kept (`measuring.py`), so a study that is cut off goes on. `noise.py` and `scales.py` read
it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from measuring import Wanted, grammar_names, make

from asi_lab.records import TUNING_SEED
from asi_lab.scoring import references

GRAMMAR = 24
RATES = {"micro": (0.012, 0.024, 0.006, 0.048), "mini": (0.004, 0.008, 0.002)}
"""Learning rates that are tried at a scale, the likeliest first."""
PAIRED = ("delta_net", "gated_delta_net", "mamba2", "fusion_gated_fir_net")


def noise(names: Sequence[str]) -> list[Wanted]:
    fixed = [Wanted(name, "micro", index) for index in range(8) for name in names]
    return fixed + [Wanted(name, "micro", index, order=index + 1) for index in range(8) for name in names]


def pairs(names: Sequence[str]) -> list[Wanted]:
    return [Wanted(name, "micro", index) for index in range(24) for name in PAIRED if name in names]


def scales(names: Sequence[str]) -> list[Wanted]:
    everyone = [*names, *grammar_names(GRAMMAR)]
    return [Wanted(name, scale, i) for i in range(2) for scale in ("micro", "mini") for name in everyone]


def rates(names: Sequence[str]) -> list[Wanted]:
    return [
        Wanted(name, "micro", TUNING_SEED + index, changes={"train.learning_rate": rate})
        for index in range(3)
        for rate in RATES["micro"]
        for name in names
    ]


STUDIES = {"noise": noise, "pairs": pairs, "rates": rates, "scales": scales}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="references; all by default")
    arguments = parser.parse_args()
    make(STUDIES[arguments.study](arguments.only or references.names()), arguments.workers)


if __name__ == "__main__":
    main()
