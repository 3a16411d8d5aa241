"""Does the terminal lab stay small over a night? python benchmarks/soak.py [LOOKS]

28,800 looks, as many as eight hours have seconds, as fast as they go. Beside it another process plays the
engine: events, points of curves, a candidate now and then. Every hundred looks another pane is taken into
view and keys are pressed there. After every tenth the viewer's memory is told: its own, and with the pages of
the store that it has read.
"""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import psutil

from asi_lab.tui.app import LabApp
from benchmarks.tui import make

LOOKS = 8 * 3600
START = 300
PANE_EVERY = 100
ENGINE = """
import random, sys, time
from pathlib import Path
import msgspec
import numpy as np
from msgspec.structs import replace
sys.path.insert(0, sys.argv[2])
from asi_lab.protocol import Progress
from asi_lab.records import CandidateState
from asi_lab.lab.store import Store
from benchmarks.store import sample
rng = random.Random(1)
with Store.open(Path(sys.argv[1]), create=False) as store:
    number, step = store.last_id(), 0
    while True:
        step += 1
        point = np.array([[step, step, 4 + 1 / step, 1e-3, 1e4, 1, step]], np.float32)
        store.append_series(f"{number:04d}", point)
        progress = msgspec.to_builtins(Progress(step, 100, step, 4.0, 1e-3, 1e4, 0.0))
        beat = {"pid": 1, "time": time.time(), "state": "running", "experiments": 10_000}
        store.put_meta("engine", beat | {"label": f"{number:04d}", "stage": "training", "progress": progress})
        store.append_events(("note", f"step {step} of {number}", {}), candidate=number)
        if step == 40:
            done = replace(sample(number, rng, 0), state=CandidateState.DONE)
            store.put(done, ("candidate_state", "done", {"state": "done"}))
            number, step = number + 1, 0
            begun = replace(sample(number, rng, 0), state=CandidateState.TRAINING)
            store.put(replace(begun, evidence=None, score=None))
        time.sleep(0.01)
"""
KEYS = {
    "2": ("j", "G", "g", "s"),
    "3": ("b", "a", "a"),
    "4": ("m", "full_stop", "a"),
    "5": ("v", "b"),
    "8": ("f",),
}


async def soak(store: Path, app: LabApp, looks: int) -> None:
    process = psutil.Process()
    async with app.run_test(size=(160, 45)) as pilot:
        while app.snapshot is None:
            await pilot.pause(0.01)
        began = time.perf_counter()
        for look in range(looks):
            if look % (looks // 10) == 0:
                tell(look, process, app, began)
            if look % PANE_EVERY == 0:
                pane = str(1 + look // PANE_EVERY % 8)
                await pilot.press(pane, *KEYS.get(pane, ()))
            seen = app.snapshot
            app.poll()
            while app.snapshot is seen:
                await asyncio.sleep(0.001)
        tell(looks, process, app, began)


def tell(look: int, process: psutil.Process, app: LabApp, began: float) -> None:
    gc.collect()
    count = len(app.snapshot.summaries) if app.snapshot else 0
    resident, seconds = process.memory_info().rss / 2**20, time.perf_counter() - began
    (own,) = (
        line for line in Path("/proc/self/status").read_text().split("\n") if line.startswith("RssAnon")
    )
    cells = (
        f"{look:,}",
        f"{look / 3600:.1f}",
        f"{count:,}",
        f"{int(own.split()[1]) / 1024:.0f}",
        f"{resident:.0f}",
    )
    print(f"| {' | '.join(cells)} | {seconds:.0f} |", flush=True)


def main() -> None:
    os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp()
    print("| looks | hours of one a second | candidates | own MB | resident MB | seconds |")
    print("|---:|---:|---:|---:|---:|---:|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        lab = make(Path(folder), START)
        root = str(Path(__file__).parents[1])
        with subprocess.Popen([sys.executable, "-c", ENGINE, str(lab.store), root]) as engine:
            app = LabApp(lab, readonly=True)
            asyncio.run(soak(lab.store, app, int(sys.argv[1]) if len(sys.argv) > 1 else LOOKS))
            engine.kill()


if __name__ == "__main__":
    main()
