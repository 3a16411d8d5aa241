"""References at several learning rates, and their order at each: python benchmarks/rates.py [NAME ...]

What `asi-lab race --tune` does, in a lab that is thrown away. Each run that has ended is a line in
benchmarks/results/rates.jsonl, and those that are there are not made again: of the same code, settings and
text. Tables are printed at the end; --tables prints them of what is there and measures nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import msgspec

from asi_lab.cli.headless import ConsoleView
from asi_lab.common.process import run_module
from asi_lab.common.syntax import code_hash
from asi_lab.data.manifest import load_manifest
from asi_lab.engine import Engine
from asi_lab.errors import LabError
from asi_lab.lab import Lab, Store
from asi_lab.lab.config import from_preset
from asi_lab.records import BaselineRun, CandidateState, Evaluation, Evidence, Run
from asi_lab.scoring import races, references, tuning
from asi_lab.settings import Limits, Settings
from asi_lab.view import tables

RESULTS = Path(__file__).parent / "results/rates.jsonl"


class Results:
    """The file of runs, as far as they are of today's code and of these settings and text."""

    def __init__(self, settings: Settings, fingerprint: str) -> None:
        train = msgspec.structs.replace(settings.train, threads=0)
        decisive = (settings.seed, settings.model, train, settings.evaluate.loss_tokens, fingerprint)
        self.settings = hashlib.sha256(msgspec.json.encode(decisive)).hexdigest()[:12]
        self.preset = settings.preset
        self.codes = {name: code_hash(references.source(name))[:12] for name in references.names()}
        lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
        self.runs = [found for line in lines if (found := self._read(json.loads(line))) is not None]

    def _read(self, row: dict[str, Any]) -> BaselineRun | None:
        if row["settings"] != self.settings or row["code"] != self.codes.get(row["architecture"]):
            return None
        if row["failed"]:
            evidence = Evidence(failure=CandidateState(row["failed"]), error=row["error"])
        else:
            evidence = Evidence(evaluation=Evaluation(row["loss"], 0, ()))
        return BaselineRun(row["architecture"], row["seed"], evidence, row["rate"])

    def add(self, run: BaselineRun) -> None:
        """Append a run that has ended, unless the machine may be to blame for its failure."""
        self.runs.append(run)
        if races.may_pass(run):
            return
        evidence = run.evidence
        row = {
            "preset": self.preset,
            "settings": self.settings,
            "code": self.codes[run.architecture],
            "architecture": run.architecture,
            "seed": run.seed_index,
            "rate": run.rate,
            "loss": evidence.evaluation.loss if evidence.evaluation else None,
            "failed": evidence.failure,
            "error": evidence.error,
            "cpu_seconds": round(evidence.training.cpu_seconds, 1) if evidence.training else None,
        }
        RESULTS.parent.mkdir(exist_ok=True)
        with RESULTS.open("a") as file:
            file.write(json.dumps(row) + "\n")


class View(ConsoleView):
    """Writes runs down as they end."""

    def __init__(self, settings: Settings, plan: races.Plan, results: Results) -> None:
        super().__init__(tables.console(stderr=True), settings, None, plan)
        self.results = results

    def refresh(self, store: Store) -> None:
        """Also shows what is new, as every view."""
        have = {run.run for run in self.results.runs}
        for run in store.reference_runs():
            if run.run not in have:
                self.results.add(run)
        super().refresh(store)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="references; the eight by default")
    parser.add_argument("--preset", default="micro")
    parser.add_argument("--seeds", type=int, default=3, help="counted runs of each")
    parser.add_argument("--tuning-seeds", type=int, default=tuning.LEAST_SEEDS)
    parser.add_argument("--tables", action="store_true", help="measure nothing")
    given = parser.parse_args()
    names = given.names or references.EIGHT
    plan = races.plan(names, given.seeds, given.tuning_seeds)
    with tempfile.TemporaryDirectory(prefix="rates-") as folder:
        lab = Lab(Path(folder, "lab"))
        settings = from_preset(given.preset)
        lab.create(msgspec.structs.replace(settings, limits=_patient(settings.limits)))
        lab.data.mkdir()
        data = msgspec.json.encode(settings.data).decode()
        run_module("asi_lab.data.prepare", [str(lab.data), data], lambda: None)
        results = Results(settings, load_manifest(lab.data).fingerprint)
        known = tuple(results.runs)

        def left(ended: Sequence[BaselineRun]) -> list[Run]:
            have = {run.run for run in known}
            return [run for run in plan([*known, *ended]) if run not in have]

        outcome = 0
        if not given.tables:
            with View(settings, left, results) as view:
                outcome = Engine(lab, view).race(left)
    show(names, given.seeds, given.tuning_seeds, settings, results.runs)
    return outcome


def _patient(limits: Limits) -> Limits:
    """Limits that no run meets because the machine has other work."""
    return msgspec.structs.replace(
        limits, trial_seconds=20 * limits.trial_seconds, stall_seconds=20 * limits.stall_seconds
    )


def show(
    names: Sequence[str], seeds: int, tuning_seeds: int, settings: Settings, runs: Sequence[BaselineRun]
) -> None:
    """Print the tables for docs/benchmarks.md."""
    best = tuning.best_rates(names, tuning_seeds, runs)
    preset = _means(dict.fromkeys(names, 1.0), seeds, runs)
    own = _means(best, seeds, runs)
    found = tuning.tuned(names, tuning_seeds, runs, settings.train.learning_rate, own)
    heads = [f"×{rate.rate:g}" for rate in found.rates]
    print(f"| architecture | {' | '.join(heads)} | lowest under ×1 | best |")
    print(f"|---|{'---:|' * (len(heads) + 2)}")
    for lane in found.lanes:
        cells = [_cell(lane.losses, rate.rate) for rate in found.rates]
        gain = "" if lane.gain is None else f"{lane.gain:.4f} ±{lane.error:.4f}"
        print(f"| {lane.architecture} | {' | '.join(cells)} | {gain} | {_rate(lane.best)} |")
    print(f"| learning rate | {' | '.join(f'{rate.learning_rate:g}' for rate in found.rates)} | | |")
    correlations = ("" if r.correlation is None else f"{r.correlation:.2f}" for r in found.rates)
    print(f"| rank correlation | {' | '.join(correlations)} | | |")
    print("\n| architecture | place at the preset's | loss | place at own best | loss | rate |")
    print("|---|---:|---:|---:|---:|---:|")
    for name in sorted(own, key=own.__getitem__):
        cells = [_place(name, preset), _place(name, own), _rate(best[name])]
        print(f"| {name} | {' | '.join(cells)} |")
    ended = [run for run in runs if run.architecture in names]
    print(f"\n{len(ended)} runs, {sum(bool(run.failure) for run in ended)} failed.")
    for run in ended:
        if run.failure:
            print(f"- {run.run.words}: {run.failure}")


def _means(rates: dict[str, float | None], seeds: int, runs: Sequence[BaselineRun]) -> dict[str, float]:
    """Mean loss of each reference over its counted runs at that rate."""
    found = {}
    for name, rate in rates.items():
        counted = {Run(name, index, rate) for index in range(seeds)} if rate else set()
        losses = [r.evidence.measured.loss for r in runs if r.run in counted and not r.failure]
        if losses:
            found[name] = fmean(losses)
    return found


def _cell(losses: dict[float, float | None], rate: float) -> str:
    if rate not in losses:
        return ""
    return "failed" if losses[rate] is None else f"{losses[rate]:.4f}"


def _rate(rate: float | None) -> str:
    return "" if rate is None else f"×{rate:g}"


def _place(name: str, losses: dict[str, float]) -> str:
    if name not in losses:
        return " | "
    return f"{1 + sorted(losses, key=losses.__getitem__).index(name)} | {losses[name]:.4f}"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LabError as error:
        sys.exit(str(error))
