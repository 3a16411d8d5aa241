"""Which probes tell architectures apart: every reference learns every probe, with several seeds.

    python benchmarks/probes.py measure [--seeds 5] [--probe NAME ...] [--architecture NAME ...]
    python benchmarks/probes.py [--losses RACE.json]

Every finished run is a line of results/probes.jsonl, which is committed: measuring goes on where it was cut
off, and measures anew only what has another definition. A probe may enter a preset if the sd between
architectures is at least three times that between seeds. Seeds are no lab's: initialisation, what is around
the layers and the streams all differ. `--losses` is what `asi-lab race --json` prints, for the
order of the losses.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

import msgspec
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from asi_lab.common.randomness import keyed_seed
from asi_lab.data.probes import MODEL, PROBES, Probe
from asi_lab.scorer.probes import ProbeTest
from asi_lab.scoring import references, worth
from asi_lab.settings import ModelSettings
from asi_lab.trial.model import load_architecture
from asi_lab.trial.probes import Seeds, Snapshots, train

RESULTS = Path(__file__).parent / "results" / "probes.jsonl"
STUDY = 1_709_001
"""Key of all seeds here."""
LEAST_RATIO = 3.0
STREAMS_AT_ONCE = 64
CPU = torch.device("cpu")


class Run(msgspec.Struct, frozen=True):
    """One training of a probe. `definition` tells what was learnt; `score` and `curve` are those of a lab's
    results, `seconds` those of the processor for training and test."""

    probe: str
    definition: str
    architecture: str
    seed: int
    score: float
    curve: tuple[tuple[int, float], ...]
    seconds: float


class Local:
    """What the scorer asks, answered in this process."""

    def __init__(self, snapshots: Snapshots) -> None:
        self._snapshots = snapshots

    def of(self, name: str, model: ModelSettings) -> Local:
        """One of the models."""
        self._residual = self._snapshots.residual(name)
        return self

    def residual(self, ids: np.ndarray, lengths: np.ndarray, starts: np.ndarray) -> torch.Tensor:
        """As that of `Remote`."""
        states = self._residual(torch.from_numpy(ids))
        return torch.cat([row[a:b] for row, a, b in zip(states, starts, lengths, strict=True)])


def definition(probe: Probe) -> str:
    """All that decides what is learnt, in words."""
    streams = probe.generate
    sizes = streams.keywords if isinstance(streams, functools.partial) else {}
    told = {
        name: getattr(probe, name) for name in ("steps", "batch", "learning_rate", "trained_on", "lengths")
    }
    return msgspec.json.encode([sizes, told, MODEL]).decode()


def measure(architecture: str, probe: Probe, seed: int) -> Run:
    """Train and test once, as a trial and a scorer do."""
    seeds = Seeds(
        keyed_seed(STUDY, architecture, seed, "init"),
        keyed_seed(STUDY, seed, "shared"),
        keyed_seed(STUDY, seed),
    )
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        Path("architecture.py").write_text(references.source(architecture))
        snapshots = Snapshots(load_architecture(Path("architecture.py").absolute()), CPU)
        began = time.process_time()
        for step, model in zip(probe.marks, train(snapshots.layer, probe, CPU, seeds), strict=True):
            snapshots.keep(probe, step, model)
        test = ProbeTest(probe.name, Path(folder), seeds.data, CPU, STREAMS_AT_ONCE)
        test.ask(Local(snapshots))
        found, _ = test.compare(Local(snapshots), 0, lambda told: None)
        seconds = time.process_time() - began
        os.chdir("/")
    return Run(probe.name, definition(probe), architecture, seed, found.score, found.curve, seconds)


def finished() -> list[Run]:
    """What was measured, of the present definitions."""
    lines = RESULTS.read_bytes().splitlines() if RESULTS.exists() else []
    runs = [msgspec.json.decode(line, type=Run) for line in lines]
    return [run for run in runs if run.probe in PROBES and run.definition == definition(PROBES[run.probe])]


def go_on(names: list[str], architectures: list[str], seeds: int) -> None:
    """Measure what is missing, one seed after the other."""
    torch.set_num_threads(1)
    for seed in range(seeds):
        for name in names:
            for architecture in architectures:
                have = {(run.probe, run.architecture, run.seed) for run in finished()}
                if (name, architecture, seed) in have:
                    continue
                run = measure(architecture, PROBES[name], seed)
                with RESULTS.open("ab") as file:
                    file.write(msgspec.json.encode(run) + b"\n")
                print(f"{name} {architecture} {seed}: {run.score:.4f} in {run.seconds:.1f} s", flush=True)


def tables(runs: list[Run], losses: dict[str, float]) -> Iterator[str]:
    """The worth of each probe, and the mean of each architecture in it."""
    yield "| probe | chance | seeds | sd of a run | sd of architectures | ratio | decided | seconds | order |"
    yield f"|---|{'---:|' * 8}"
    means: dict[str, dict[str, float]] = {}
    for name, probe in PROBES.items():
        groups: dict[str, list[float]] = {}
        for run in sorted((run for run in runs if run.probe == name), key=lambda run: run.seed):
            groups.setdefault(run.architecture, []).append(run.score)
        groups = {one: scores for one, scores in groups.items() if len(scores) > 1}
        if len(groups) < 2:
            continue
        found = worth.worth(name, "", groups)
        means[name] = {one: fmean(scores) for one, scores in groups.items()}
        seconds = fmean(run.seconds for run in runs if run.probe == name)
        enters = "**" if (found.ratio or 0) >= LEAST_RATIO else ""
        order = spearman(means[name], losses)
        yield (
            f"| {enters}{name}{enters} | {probe.chance:.3f} | {min(map(len, groups.values()))} "
            f"| {found.between_seeds:.4f} | {found.between:.4f} | {found.ratio or 0:.1f} "
            f"| {found.decided:.0%} | {seconds:.1f} | {order} |"
        )
    yield ""
    yield f"| architecture | {' | '.join(means)} |"
    yield f"|---|{'---:|' * len(means)}"
    for one in references.names():
        cells = [f"{of_probe[one]:.3f}" if one in of_probe else "" for of_probe in means.values()]
        if any(cells):
            yield f"| {one} | {' | '.join(cells)} |"


def spearman(scores: dict[str, float], losses: dict[str, float]) -> str:
    """The rank correlation of a probe's scores with low losses, over the architectures that have both."""
    from scipy.stats import spearmanr

    both = [one for one in scores if one in losses]
    if len(both) < 3:
        return ""
    return f"{float(spearmanr([scores[one] for one in both], [-losses[one] for one in both]).statistic):+.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="?", choices=["measure", "tables"], default="tables")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--probe", action="append", choices=list(PROBES))
    parser.add_argument("--architecture", action="append", choices=references.names())
    parser.add_argument("--losses", type=Path)
    chosen = parser.parse_args()
    if chosen.what == "measure":
        go_on(chosen.probe or list(PROBES), chosen.architecture or references.names(), chosen.seeds)
    lanes = msgspec.json.decode(chosen.losses.read_bytes())["lanes"] if chosen.losses else []
    losses = {lane["architecture"]: lane["loss"]["mean"] for lane in lanes}
    print("\n".join(tables(finished(), losses)))


if __name__ == "__main__":
    main()
