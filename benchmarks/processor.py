"""Processor time of honest candidates on a quiet and a busy machine: python benchmarks/processor.py

A candidate that takes more than `limits.cpu_ratio` times DeltaNet's processor time ends as slow. Every sound
architecture of the zoo is trained for a few steps at the micro preset, in real trials; then DeltaNet and the
most expensive ones again, while two programs a core keep the machine busy. The worst case is a baseline
measured on the quiet machine and a candidate on the busy one. The table is printed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from asi_lab import sandbox  # noqa: E402
from asi_lab.data.manifest import load_manifest  # noqa: E402
from asi_lab.data.prepare import prepare  # noqa: E402
from asi_lab.engineer.executor import LocalExecutor  # noqa: E402
from asi_lab.engineer.supervise import Supervision, run  # noqa: E402
from asi_lab.lab.config import from_preset  # noqa: E402
from asi_lab.protocol import ScoreJob, TrialJob  # noqa: E402
from asi_lab.scoring import references  # noqa: E402
from asi_lab.settings import Settings  # noqa: E402
from tests import zoo  # noqa: E402

BUSY = (
    "while True: pass",
    "import torch\na = torch.rand(1024, 1024)\nwhile True: a = (a @ a).clone().clamp(-1, 1)",
)
"""What keeps a core busy: arithmetic alone, and matrices that push all else out of the caches."""
DEAREST = 4
REPEATS = 3


def settings_of(steps: int) -> Settings:
    """The micro preset, with a short training and hardly any evaluation."""
    micro = from_preset("micro", device="cpu")
    return msgspec.structs.replace(
        micro,
        train=msgspec.structs.replace(micro.train, steps=steps, warmup_steps=1),
        evaluate=msgspec.structs.replace(
            micro.evaluate, tasks=(), probes=(), loss_tokens=2048, prefix_checks=8
        ),
    )


def processor_seconds(code: str, executor: LocalExecutor, settings: Settings, data: Path) -> float:
    """What a whole trial took, with all its children: preflight, training and checkpoint."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "architecture.py").write_text(code)
        limits = msgspec.structs.replace(settings.limits, trial_seconds=1800.0, stall_seconds=600.0)
        vocab = load_manifest(data).vocab_size
        lenient = msgspec.structs.replace(settings, limits=limits)
        job = TrialJob.of(lenient, "train", data=str(data), vocab_size=vocab, seed=1)
        context = settings.train.context
        score = ScoreJob(str(data), 0, "cpu", context, settings.model, settings.evaluate, {}, 1)
        evidence = run(executor.take(), job, score, Path(folder), Supervision(settings.supervise))
    if evidence.training is None:
        raise SystemExit(f"a sound architecture was not trained: {evidence.error}")
    return evidence.training.cpu_seconds


@contextlib.contextmanager
def busy() -> Iterator[None]:
    """Two programs a core that never rest."""
    programs = [
        subprocess.Popen([sys.executable, "-c", text]) for text in BUSY for _ in range(os.cpu_count() or 1)
    ]
    try:
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=60)
    settings = settings_of(parser.parse_args().steps)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "data")
        prepare(settings.data, data)
        executor = LocalExecutor(
            Path(folder, "slot"), sandbox.choose("auto", sandbox.probe()), data, settings
        )

        def median(code: str, repeats: int = REPEATS) -> float:
            taken = [processor_seconds(code, executor, settings, data) for _ in range(repeats)]
            return statistics.median(taken)

        codes = {"delta_net": references.source("delta_net")} | {e.name: e.source for e in zoo.sound()}
        quiet = {name: median(code, REPEATS if name == "delta_net" else 1) for name, code in codes.items()}
        dearest = sorted(quiet, key=lambda name: -quiet[name])[:DEAREST]
        with busy():
            loaded = {name: median(codes[name]) for name in ["delta_net", *dearest]}
        executor.close()
    base = quiet["delta_net"]
    print(f"micro preset, {settings.train.steps} steps; limits.cpu_ratio is {settings.limits.cpu_ratio:g}\n")
    print("| architecture | quiet | over DeltaNet's | busy | over DeltaNet's on a quiet machine |")
    print("|---|---:|---:|---:|---:|")
    for name, taken in loaded.items():
        row = f"{quiet[name]:.1f} s | {quiet[name] / base:.1f}x | {taken:.1f} s | {taken / base:.1f}x"
        print(f"| {name} | {row} |")
    others = [quiet[name] / base for name in quiet if name not in loaded]
    print(f"| {len(others)} further sound ones | | {min(others):.1f}x to {max(others):.1f}x | | |")


if __name__ == "__main__":
    main()
