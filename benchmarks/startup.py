"""How long the command line takes to start: median wall time over ten runs, as a markdown table.

    python benchmarks/startup.py [LAB]

Without a lab, one is made for the occasion; with one, its size shows in the times.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RUNS = 10
COMMANDS = (("--version",), ("--help",), ("status", "--once"), ("top",), ("show", "best"))


def seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    return time.perf_counter() - started


def measure(lab: Path) -> None:
    program = [sys.executable, "-m", "asi_lab", "--lab", str(lab)]
    bare = statistics.median(seconds([sys.executable, "-c", ""]) for _ in range(RUNS))
    print("| command | median | slowest |")
    print("|---|---:|---:|")
    print(f"| python, doing nothing | {bare:.3f} s | |")
    for command in COMMANDS:
        seconds([*program, *command])  # fills the caches of the file system
        times = [seconds([*program, *command]) for _ in range(RUNS)]
        print(f"| asi-lab {' '.join(command)} | {statistics.median(times):.3f} s | {max(times):.3f} s |")


def main() -> None:
    if len(sys.argv) > 1:
        measure(Path(sys.argv[1]))
        return
    with tempfile.TemporaryDirectory() as folder:
        lab = Path(folder) / "lab"
        subprocess.run([sys.executable, "-m", "asi_lab", "--lab", lab, "init"], check=True)
        measure(lab)


if __name__ == "__main__":
    main()
