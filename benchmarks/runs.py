"""Make the runs of a study: python benchmarks/runs.py STUDY [--workers N] [--only NAME...]

noise        every reference at micro with 8 seeds on one order of the data, and with 8 seeds on 8 orders
pairs        four references at micro with 24 seeds, for whether runs of one index are alike
rates        every reference at micro at several learning rates, with seeds of their own
rates-mini   three references at mini likewise
scales       references and grammar candidates at micro and mini, two seeds each, with their probes

What is finished is kept (`measuring.py`), so a study that is cut off goes on. `noise.py`, `rates.py` and
`scales.py` read it.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence

import rates
from measuring import Wanted, grammar_names, make, missing

from asi_lab.scoring import references

GRAMMAR = 9
PAIRED = ("delta_net", "gated_delta_net", "mamba2", "fusion_gated_fir_net")


def noise(names: Sequence[str]) -> list[Wanted]:
    fixed = [Wanted(name, "micro", index) for index in range(8) for name in names]
    return fixed + [Wanted(name, "micro", index, order=index + 1) for index in range(8) for name in names]


def pairs(names: Sequence[str]) -> list[Wanted]:
    return [Wanted(name, "micro", index) for index in range(24) for name in PAIRED if name in names]


def scales(names: Sequence[str]) -> list[Wanted]:
    of_grammar = itertools.zip_longest(names, grammar_names(GRAMMAR))
    everyone = [name for pair in of_grammar for name in pair if name]
    return [
        Wanted(name, scale, index, probes=True)
        for index in range(2)
        for scale in ("mini", "micro")
        for name in everyone
    ]


STUDIES = {
    "noise": noise,
    "pairs": pairs,
    "rates": lambda names: rates.wanted(names, "micro"),
    "rates-mini": lambda names: rates.wanted(PAIRED[:3], "mini"),
    "scales": scales,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="references; all by default")
    arguments = parser.parse_args()
    names = arguments.only or references.names()
    while missing(wanted := STUDIES[arguments.study](names)):  # what has ended may tell of more
        make(wanted, arguments.workers)


if __name__ == "__main__":
    main()
