"""What several trials at the same time bring: python benchmarks/slots.py [CANDIDATES]

First how busy slots are that may run apart by so many numbers, simulated: durations are log-normal with a
standard deviation of their logarithm of 0.35, and a quarter of the candidates fails after 0.15 of the median.
Then the preset micro for real on the CPU, with one slot and with two; with 0 candidates this is left out.
"""

from __future__ import annotations

import heapq
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import psutil

from asi_lab.lab import Lab, Store

SCATTER, FAILING, SHORT = 0.35, 0.25, 0.15
SIMULATED = 4000
LAB = """preset = "micro"
seed = 5
device = "cpu"
[search]
slots = {slots}
[baselines]
seeds = 2
max_seeds = 2
"""


def busy(slots: int, apart: int, failing: float) -> float:
    """The share of time that slots are busy, where candidates begin in order and none before those more than
    `apart` numbers behind it have ended."""
    rng, now, worked = random.Random(0), 0.0, 0.0
    running: list[tuple[float, int]] = []
    for number in range(SIMULATED):
        while len(running) >= slots or any(other < number - apart for _, other in running):
            now = max(now, heapq.heappop(running)[0])
        takes = SHORT if rng.random() < failing else rng.lognormvariate(0.0, SCATTER)
        heapq.heappush(running, (now + takes, number))
        worked += takes
    return worked / (slots * max(end for end, _ in running))


def search(slots: int, candidates: int) -> tuple[float, float, float]:
    """Candidates a minute, seconds for four baseline runs, and how many cores the whole machine kept busy."""
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(Path(folder))
        lab.config.write_text(LAB.format(slots=slots))
        program = [sys.executable, "-m", "asi_lab", "--lab", folder, "--no-tui"]
        before, began = psutil.cpu_times(), time.monotonic()
        subprocess.run([*program, "--experiments", str(candidates)], check=True, capture_output=True)
        after, seconds = psutil.cpu_times(), time.monotonic() - began
        with Store.open_readonly(lab.store) as store:
            events = store.events(0, 100_000)
    start = next(event.time for event in events if event.kind == "engine_started")
    measured = [event.time for event in events if event.kind == "baseline_measured"]
    proposed = next(event.time for event in events if event.kind == "candidate_proposed")
    ended = [event.time for event in events if event.kind == "commit" and event.candidate]
    cores = sum(getattr(after, kind) - getattr(before, kind) for kind in ("user", "system", "nice")) / seconds
    return 60 * candidates / (ended[-1] - proposed), measured[-1] - start, cores


def main() -> None:
    candidates = int(sys.argv[1]) if len(sys.argv) > 1 else 6
    bounds = {"slots - 1": 1, "2 x (slots - 1)": 2, "3 x (slots - 1)": 3}
    print("| slots | a quarter fails | " + " | ".join(bounds) + " |\n|---:|---|" + "---:|" * len(bounds))
    for slots in (2, 4, 8):
        for failing in (FAILING, 0.0):
            shares = [busy(slots, factor * (slots - 1), failing) for factor in bounds.values()]
            row = " | ".join(f"{share:.1%}" for share in shares)
            print(f"| {slots} | {'yes' if failing else 'no'} | {row} |")
    if candidates:
        print("\n| slots | candidates a minute | four baseline runs | cores busy |\n|---:|---:|---:|---:|")
        for slots in (1, 2):
            pace, baselines, cores = search(slots, candidates)
            print(f"| {slots} | {pace:.2f} | {baselines:.0f} s | {cores:.2f} |", flush=True)


if __name__ == "__main__":
    main()
