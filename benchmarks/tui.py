"""How quickly the terminal lab answers keys, and what it costs to look on: python benchmarks/tui.py [N ...]

Synthetic candidates of the size of real ones, a terminal of 160x45 that nobody sees. A key's time is from its
press until everything it caused is drawn, less that of a key that does nothing. Processor time is that of ten
seconds with a look a second; beside it another process adds an event a second.
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))

from msgspec.structs import replace

from asi_lab.lab import Lab, Store
from asi_lab.records import BaselineRun, CandidateState
from asi_lab.tui.app import LabApp
from benchmarks.store import sample

COUNTS = (100, 1000, 10_000)
KEYS = (
    *("2", "j", "k", "pagedown", "G", "g", "s", "enter", "escape", "m"),
    *("3", "b", "u", "space", "space", "a", "a", "4", "full_stop", "a"),
    *("5", "v", "v", "right_square_bracket", "b", "6", "7", "8", "f", "f", "f", "1"),
)
LOOK_SECONDS = 10
NEWS = """
import sys, time
from pathlib import Path
from asi_lab.lab.store import Store
with Store.open(Path(sys.argv[1]), create=False) as store:
    for number in range(60):
        store.append_events(("note", f"news {number}", {}))
        time.sleep(1)
"""


def make(folder: Path, count: int) -> Lab:
    lab, rng = Lab(folder / "lab"), random.Random(0)
    lab.path.mkdir(parents=True)
    lab.config.write_text('preset = "micro"\n')
    with Store.open(lab.store) as store:
        for name in ("delta_net", "gated_delta_net"):
            for index in range(3):
                evidence = sample(index, rng).evidence
                assert evidence is not None
                store.put_baseline(BaselineRun(name, index, evidence))
        for number in range(count + 1):
            parent = rng.randrange(number) if number else 0
            store.put(replace(sample(number, rng, parent), state=CandidateState.DONE))
    return lab


async def measure(lab: Lab) -> list[str]:
    app, started = LabApp(lab, readonly=True), time.perf_counter()
    async with app.run_test(size=(160, 45)) as pilot:
        while app.snapshot is None:
            await pilot.pause(0.01)
        first = time.perf_counter() - started
        idle = [await _pressed(pilot, "ctrl+k") for _ in range(20)]  # a key that nothing listens to
        taken = []
        for _ in range(3):
            for key in KEYS:
                taken.append((await _pressed(pilot, key) - median(idle), key))
        await pilot.press("2")
        quiet = await _share(pilot)
        with subprocess.Popen([sys.executable, "-c", NEWS, str(lab.store)]) as writer:
            await pilot.pause(2)
            busy = await _share(pilot)
            writer.kill()
    slowest, key = max(taken)
    times = sorted(seconds for seconds, _ in taken)
    return [
        f"{first:.2f} s",
        f"{1000 * median(times):.0f} ms",
        f"{1000 * times[len(times) * 9 // 10]:.0f} ms",
        f"{sum(seconds < 0.1 for seconds in times) / len(times):.0%}",
        f"{1000 * slowest:.0f} ms ({key})",
        f"{quiet:.0%}",
        f"{busy:.0%}",
    ]


async def _pressed(pilot: object, key: str) -> float:
    before = time.perf_counter()
    await pilot.press(key)  # type: ignore[attr-defined]
    await pilot.pause()  # type: ignore[attr-defined]
    return time.perf_counter() - before


async def _share(pilot: object) -> float:
    """Of one core, over some seconds."""
    began, used = time.perf_counter(), time.process_time()
    await pilot.pause(LOOK_SECONDS)  # type: ignore[attr-defined]
    return (time.process_time() - used) / (time.perf_counter() - began)


def main() -> None:
    os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp()
    print(
        "| candidates | first look | a key, median | 9 of 10 within | under 100 ms | slowest | core, no news "
        "| core, news each second |"
    )
    print("|---:|---:|---:|---:|---:|---:|---:|---:|", flush=True)
    for count in [int(word) for word in sys.argv[1:]] or COUNTS:
        with tempfile.TemporaryDirectory() as folder:
            row = asyncio.run(measure(make(Path(folder), count)))
        print(f"| {count:,} | {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
