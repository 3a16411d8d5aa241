"""How well counted work foretells the time of training: python benchmarks/work.py LAB [LAB]

For every trained candidate of a lab its operations and bytes are counted anew, as a serving process counts
them, and their geometric mean over DeltaNet's is held against the seconds that its training took over
DeltaNet's: those of the processor where the lab has them, else of the clock. With a second lab of the same
candidates, which was searched beside busy neighbours, it says by what factor they moved the seconds. A count
is not used where the two differ by more than `CONTRADICTED`. The tables are printed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

import torch

from asi_lab.data.manifest import load_manifest
from asi_lab.lab import Lab, Store
from asi_lab.records import SEED_ID, Training, Work
from asi_lab.scoring import references
from asi_lab.scoring.baselines import SEED_ARCHITECTURE
from asi_lab.scoring.work import CONTRADICTED
from asi_lab.settings import Settings
from asi_lab.trial.model import LanguageModel, load_architecture
from asi_lab.trial.work import per_token

VOCABULARY = 1024
"""Of labs whose data is not there; it does not enter a count."""


def counted(code: str, settings: Settings, vocabulary: int) -> Work:
    """The work of an architecture at the scale of a lab."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "architecture.py")
        path.write_text(code, encoding="utf-8")
        model = LanguageModel(load_architecture(path), settings.model, vocabulary)
        return per_token(model, settings.train.context)


def seconds(training: Training) -> float:
    """What training took, of the processor if that is known."""
    return training.cpu_seconds or training.seconds


def trainings(lab: Lab) -> tuple[list[Training], dict[int, tuple[str, Training]]]:
    """DeltaNet's runs, and of each trained candidate the code and the training."""
    with Store.open_readonly(lab.store) as store:
        runs = [r.evidence.trained for r in store.baselines() if r.architecture == SEED_ARCHITECTURE]
        found = {
            c.id: (c.code, c.evidence.training)
            for c in store.candidates()
            if c.id != SEED_ID and c.evidence and c.evidence.training
        }
    return runs, found


def spread(what: str, values: list[float]) -> str:
    """A row of the table."""
    low, *_, high = statistics.quantiles(values, n=20, method="inclusive")
    middle = statistics.median(values)
    figures = (min(values), low, middle, high, max(values))
    return f"| {what} | {len(values)} | {' | '.join(f'{figure:.2f}' for figure in figures)} |"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("lab", type=Path)
    parser.add_argument("busy", type=Path, nargs="?")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    lab = Lab(arguments.lab)
    settings = lab.settings()
    vocabulary = load_manifest(lab.data).vocab_size if lab.data.exists() else VOCABULARY
    runs, found = trainings(lab)
    usual = statistics.fmean(map(seconds, runs))
    base = counted(references.source(SEED_ARCHITECTURE), settings, vocabulary)
    works = {number: counted(code, settings, vocabulary) for number, (code, _) in found.items()}
    times = {number: seconds(training) / usual for number, (_, training) in found.items()}
    print("| over DeltaNet | candidates | least | 5 % | median | 95 % | most |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    print(spread("operations", [work.operations / base.operations for work in works.values()]))
    print(spread("bytes", [work.bytes / base.bytes for work in works.values()]))
    print(spread("seconds", list(times.values())))
    sizes = {number: work.size / base.size for number, work in works.items()}
    print(spread("seconds over the geometric mean", [times[number] / sizes[number] for number in times]))
    if arguments.busy is not None:
        again, beside = trainings(Lab(arguments.busy))
        moved = [seconds(b) / seconds(a) for a, b in zip(runs, again, strict=True)]
        moved += [seconds(beside[n][1]) / seconds(training) for n, (_, training) in found.items()]
        print(spread("seconds beside busy neighbours, over those without", moved))
    print(f"\nA count is not used from {CONTRADICTED:g} on.", file=sys.stderr)


if __name__ == "__main__":
    main()
