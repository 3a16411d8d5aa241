"""Seconds that each trial of a lab spent compiling, in the order in which they ran.

    python benchmarks/compiling.py LAB

The first trial of a reference finds an empty cache, the others what references left (docs/training.md). The
lab is one that was searched with `train.compile = "on"`.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from asi_lab.lab import Lab, Store
from asi_lab.records import SEED_ID


def main() -> None:
    with Store.open_readonly(Lab(Path(sys.argv[1])).store) as store:
        trials = [(f"{b.architecture} (reference)", b.evidence) for b in store.baselines()]
        trials += [(c.name, c.evidence) for c in store.candidates() if c.id != SEED_ID and c.evidence]
    print("| trial | compilation | training |\n|---|---:|---:|")
    for name, evidence in trials:
        if evidence.training is not None:
            training = evidence.training
            print(f"| {name} | {training.compile_seconds:.1f} s | {training.seconds:.1f} s |")


if __name__ == "__main__":
    main()
