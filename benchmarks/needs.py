"""What the presets for a GPU need of one, counted without one: the table in docs/training.md.

    python benchmarks/needs.py

About three minutes on one core.
"""

from __future__ import annotations

from asi_lab.lab import config
from asi_lab.view import needs
from asi_lab.view.needs import GB, Room

CARDS = (24, 80)


def main() -> None:
    print("| preset | weights | gradients | AdamW | activations | full rows | trial | 24 GB | 80 GB |")
    print("|---|---:|---:|---:|---:|---:|---:|---|---|")
    for name in ("20m", "340m", "1.3b"):
        settings = config.from_preset(name)
        found = needs.demand(settings, "cuda")
        parts = found.weights, found.gradients, found.moments, found.activations, found.answering
        trial = 2 * needs.GPU_PROCESS + needs.GPU_HEAP * found.peak
        judged = [needs.memory(settings, found, 1, Room(card * GB, 0.0), None) for card in CARDS]
        fits = [f"{one.verdict}{f': {one.fix}' if one.fix else ''}" for one in judged]
        print(f"| `{name}` |", " | ".join([*(f"{part / GB:.1f}" for part in (*parts, trial)), *fits]), "|")


if __name__ == "__main__":
    main()
