"""Kills and stops searches again and again, and compares what they end with: python benchmarks/kills.py

    --simulated N   kills of engines whose trials are simulated (1,000)
    --real N        kills of engines, trials, servers and scorers with real trials of a tiny model (60)

Each search is killed several times and then goes on to its end. It must leave what an undisturbed one
leaves: the same ids, code, draws, losses, scores, refs and commits, nothing lost, nothing doubled, and a lab
that fsck finds nothing in. Each finished search is a line in benchmarks/results/kills.jsonl; those that are
there are not made again. The table is printed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from asi_lab.lab import Lab, Lineage, Store, fsck  # noqa: E402
from asi_lab.scoring import references  # noqa: E402
from tests import test_search  # noqa: E402
from tests.faults import conftest as drills  # noqa: E402

RESULTS = ROOT / "benchmarks/results/kills.jsonl"
PER_SEARCH = {"simulated": 10, "real": 3}
EXPERIMENTS = {"simulated": drills.EXPERIMENTS, "real": 3}
Fault = tuple[str, Callable[[], int]]
"""What is done, in words, and what does it; returns how many kills and stops it was."""


def simulated(
    number: int, prepared: Lab, engines: drills.Engines, boundaries: int
) -> tuple[Lab, dict[str, int]]:
    """Search under kills at boundaries and at any time, and stops; returns the lab and the kills by kind."""
    rng = random.Random(f"kills {number}")
    lab = Lab(shutil.copytree(prepared.path, Path(tempfile.mkdtemp()) / "lab"))
    kinds: dict[str, int] = defaultdict(int)
    for _ in range(PER_SEARCH["simulated"]):
        kind = rng.choice(
            ["killed at a boundary", "killed at any time", "stopped at a boundary", "stopped at any time"]
        )
        place, delay = rng.randrange(1, boundaries), rng.uniform(0.0, 1.5)
        faults: dict[str, Any] = {
            "killed at a boundary": {"kill": place},
            "killed at any time": {"signals": [[delay, signal.SIGKILL]]},
            "stopped at a boundary": {
                "stop": place,
                "stopped": 0.3,
                "signals": [[delay + 1.0, signal.SIGKILL]],
            },
            "stopped at any time": {
                "signals": [
                    [delay, signal.SIGSTOP],
                    [delay + 0.3, signal.SIGCONT],
                    [delay + 0.6, signal.SIGKILL],
                ]
            },
        }[kind]
        ended = engines.run(lab, delay=0.002, **faults)
        if ended.code not in (0, -signal.SIGKILL):
            raise SystemExit(f"{kind}: the engine ended with {ended.code}: {ended.said}")
        kinds[kind] += 1
    engines.finish(lab)
    return lab, kinds


def family(pid: int) -> list[psutil.Process]:
    """A process and all that it has started."""
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    return []


def running(pid: int, module: str) -> list[psutil.Process]:
    """Those of a process' family that run a module, the oldest first."""
    found = []
    for process in family(pid)[1:]:
        with contextlib.suppress(psutil.Error):
            if process.cmdline()[3:5] == ["-m", module]:  # not what guards it
                found.append(process)
    return sorted(found, key=lambda process: process.create_time())


def send(processes: list[psutil.Process], number: int) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


MODULES = {
    "trial": "asi_lab.trial",
    "server": "asi_lab.trial.server",
    "scorer": "asi_lab.scorer",
}
REAL = (
    *("engine killed", "engine and all its processes killed", "engine stopped for 4 s"),
    *("engine and all its processes stopped for 4 s", "trial killed", "server killed", "scorer killed"),
    "trial stopped for 3 s",
)


def real(number: int, prepared: Lab) -> tuple[Lab, dict[str, int]]:
    """Search under kills and stops of real processes; returns the lab and the kills by kind."""
    rng = random.Random(f"kills {number}")
    lab = Lab(shutil.copytree(prepared.path, Path(tempfile.mkdtemp()) / "lab"))
    kinds: dict[str, int] = defaultdict(int)
    engine = test_search.start(lab, EXPERIMENTS["real"])
    while sum(kinds.values()) < PER_SEARCH["real"]:
        kind = rng.choice(REAL)
        time.sleep(rng.uniform(4.0, 20.0))
        if engine.poll() is not None:
            break
        everybody = family(engine.pid)
        if kind.startswith("engine"):
            hit = everybody if "all" in kind else everybody[:1]
        else:
            hit = running(engine.pid, MODULES[kind.split()[0]])[:1]
        if not hit:
            continue
        kinds[kind] += 1
        if "killed" in kind:
            send(hit, signal.SIGKILL)
        else:
            send(hit, signal.SIGSTOP)
            time.sleep(float(kind.split()[-2]))
            send(hit, signal.SIGCONT)
        if kind.startswith("engine") and "killed" in kind:
            engine.communicate()
            engine = test_search.start(lab, EXPERIMENTS["real"])
    _, said = engine.communicate(timeout=1800)
    if engine.returncode != 0:
        raise SystemExit(f"{dict(kinds)}: the engine ended with {engine.returncode}: {said}")
    return lab, kinds


def without_times(lab: Lab) -> list[Any]:
    """All that a search with real trials found, times left out."""
    with Store.open(lab.store) as store:
        found = [
            (c.id, c.state, c.draw, c.proposal, c.loss, c.score, c.evidence and c.evidence.error)
            for c in store.candidates()
        ]
        curves = {run: store.series(run)[:, :3].tolist() for run in store.series_runs()}
        events = store.events(limit=10**6)
        commits = [e.candidate for e in events if e.kind == "commit"]
        refs = sorted(Lineage.open(lab.lineage).refs())
        findings = fsck.check(store, lab.lineage, store.get_meta("config"), [references.upper()])
    assert findings == [], findings
    assert len(commits) == len(set(commits)), commits
    return [found, curves, refs]


def searches(kind: str, wanted: int) -> Iterator[int]:
    """Numbers of searches that are still to be made, until there were so many kills."""
    number = 0
    while (done := sum(sum(row["kills"].values()) for row in rows() if row["kind"] == kind)) < wanted:
        taken = {row["number"] for row in rows() if row["kind"] == kind}
        number = next(i for i in range(10**6) if i not in taken)
        print(f"{kind}: {done} of {wanted} kills", file=sys.stderr, flush=True)
        yield number


def rows() -> list[dict[str, Any]]:
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def keep(kind: str, number: int, kills: dict[str, int], same: bool, lost: int) -> None:
    row = {"kind": kind, "number": number, "kills": kills, "same": same, "lost": lost}
    with RESULTS.open("a") as file:
        file.write(json.dumps(row) + "\n")


def run_simulated(wanted: int) -> None:
    engines = drills.Engines()
    with tempfile.TemporaryDirectory() as folder:
        prepared = drills.prepare_lab(Path(folder))
        whole = Lab(shutil.copytree(prepared.path, Path(folder) / "whole"))
        boundaries = len(engines.finish(whole).boundaries)
        expected = drills.outcome(whole)
        for number in searches("simulated", wanted):
            lab, kills = simulated(number, prepared, engines, boundaries)
            found = drills.outcome(lab)
            lost = len(expected.candidates) - len(found.candidates)
            keep("simulated", number, kills, found == expected, lost)
            shutil.rmtree(lab.path.parent)
    engines.close()


def run_real(wanted: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        made = test_search.make_lab(Path(folder))
        prepared = Lab(shutil.copytree(made.path, Path(folder) / "prepared"))
        whole = test_search.start(made, EXPERIMENTS["real"])
        whole.communicate(timeout=3600)
        expected = without_times(made)
        for number in searches("real", wanted):
            lab, kills = real(number, prepared)
            found = without_times(lab)
            keep("real", number, kills, found == expected, len(expected[0]) - len(found[0]))
            shutil.rmtree(lab.path.parent)


def table() -> None:
    print("| trials | what happened | times | searches | other outcomes | lost or doubled |")
    print("|---|---|---:|---:|---:|---:|")
    for trials in ("simulated", "real"):
        of_kind = [row for row in rows() if row["kind"] == trials]
        for what in sorted({what for row in of_kind for what in row["kills"]}):
            hit = [row for row in of_kind if row["kills"].get(what)]
            times, other = sum(row["kills"][what] for row in hit), sum(not row["same"] for row in hit)
            print(
                f"| {trials} | {what} | {times} | {len(hit)} | {other} | {sum(row['lost'] for row in hit)} |"
            )
        total = sum(sum(row["kills"].values()) for row in of_kind)
        other = sum(not row["same"] for row in of_kind)
        print(
            f"| {trials} | all | {total} | {len(of_kind)} | {other} | {sum(row['lost'] for row in of_kind)} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--simulated", type=int, default=1000)
    parser.add_argument("--real", type=int, default=60)
    wanted = parser.parse_args()
    RESULTS.parent.mkdir(exist_ok=True)
    os.environ.pop("PYTEST_CURRENT_TEST", None)
    subprocess.run(["git", "--version"], check=True, stdout=subprocess.DEVNULL)
    run_simulated(wanted.simulated)
    run_real(wanted.real)
    table()


if __name__ == "__main__":
    main()
