"""How far each form of each operation is from its reference in float64, as markdown tables.

    python benchmarks/errors.py

Runs on a CPU; Triton's kernels run in its interpreter, in float32 and float16 (it has no bfloat16) and on
a smaller shape. Errors are by norm, the largest of all outputs and that of all gradients. The second table
makes it hard for the delta rules: keys that are alike, and beta = 2.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["TRITON_INTERPRET"] = "1"
sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from benchmarks.gpu_ops import OPERATIONS, Make, Operation, Size, compare

CPU = torch.device("cpu")
SIZE = Size(B=2, T=257, H=2, K=32, vocabulary=1000)
SMALL = Size(B=1, T=37, H=2, K=16, vocabulary=100)
FORMATS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
INTERPRETED = {"float32": torch.float32, "float16": torch.float16}
LIKENESS = (0.0, 0.5, 0.9, 1.0)


def main() -> None:
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}; B, T, H, K = {shape(SIZE)}, in Triton's interpreter {shape(SMALL)}\n")
    print("| operation | form | float32 | bfloat16 | float16 |\n|---|---|---:|---:|---:|")
    for name, operation in OPERATIONS.items():
        for form in operation.forms(CPU, torch.float32):
            cells = [figures(operation, form, SIZE, Make(CPU, dtype)) for dtype in FORMATS.values()]
            print(f"| {name} | {form} | {' | '.join(cells)} | |")
        if "triton" in operation.all_forms():
            cells = [figures(operation, "triton", SMALL, Make(CPU, dtype)) for dtype in INTERPRETED.values()]
            print(f"| {name} | triton | {cells[0]} | | {cells[1]} |")

    columns = " | ".join(f"likeness {x:g}" for x in LIKENESS)
    print(f"\n| operation | beta | {columns} |\n|---|---:|{'---:|' * len(LIKENESS)}")
    for name in ("delta_rule", "gated_delta_rule", "kda", "dplr_delta_rule"):
        for beta in (1.0, 2.0):
            makes = [Make(CPU, torch.float32, likeness, beta) for likeness in LIKENESS]
            cells = [figures(OPERATIONS[name], "chunk", SIZE, make) for make in makes]
            print(f"| {name} | {beta:g} | {' | '.join(cells)} |")


def shape(size: Size) -> tuple[int, int, int, int]:
    return size.B, size.T, size.H, size.K


def figures(operation: Operation, form: str, size: Size, make: Make) -> str:
    """Errors of outputs and of gradients."""
    outputs, gradients = compare(operation, form, size, make)
    return f"{outputs:.0e}, {gradients:.0e}"


if __name__ == "__main__":
    main()
