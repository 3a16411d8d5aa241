"""Seconds of a whole trial in two checkouts, in turns: python benchmarks/revisions.py OTHER_CHECKOUT TEXT

Both have their own environment in .venv. Each round runs a search in either, at the micro preset on the text
of one file, until its four baselines are measured. A trial's seconds are those between two lines about a
baseline, since each starts while the one before is at work; the first is left out. The table is printed.
"""

from __future__ import annotations

import argparse
import itertools
import signal
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
LAB = """preset = "micro"
[data]
source = "text:{text}"
tokenizer = "bpe:2048"
[baselines]
seeds = 2
max_seeds = 2
"""
TRIALS = 4


def seconds(checkout: Path, text: Path) -> list[float]:
    """Wall time of each trial of a new lab, from the second one on."""
    with tempfile.TemporaryDirectory() as folder:
        lab = Path(folder, "lab")
        lab.mkdir()
        (lab / "lab.toml").write_text(LAB.format(text=text.resolve()))
        command = [str(checkout / ".venv/bin/asi-lab"), "--lab", str(lab), "--no-tui", "--experiments", "1"]
        with subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=folder
        ) as engine:
            ends: list[float] = []
            assert engine.stderr is not None
            for line in engine.stderr:
                if "baseline" in line and "seed" in line and "step" not in line:
                    ends.append(time.monotonic())
                    if len(ends) == TRIALS:
                        engine.send_signal(signal.SIGTERM)
        if len(ends) < TRIALS:
            raise SystemExit(f"expected {TRIALS} baselines in {checkout}, found {len(ends)}")
    return [later - earlier for earlier, later in itertools.pairwise(ends)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("other", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    found: dict[Path, list[float]] = {arguments.other.resolve(): [], ROOT: []}
    for _ in range(arguments.rounds):
        for checkout, taken in found.items():
            taken += seconds(checkout, arguments.text)
    before = statistics.median(found[arguments.other.resolve()])
    print("| revision | trials | median | least | most | over the other's |")
    print("|---|---:|---:|---:|---:|---:|")
    for checkout, taken in found.items():
        command = ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"]
        revision = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        middle = statistics.median(taken)
        figures = f"{middle:.1f} s | {min(taken):.1f} s | {max(taken):.1f} s | {middle / before:.2f}x"
        print(f"| {revision} | {len(taken)} | {figures} |")


if __name__ == "__main__":
    main()
