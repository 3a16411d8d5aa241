"""Every check on every architecture of the zoo: python benchmarks/zoo.py [--genomes N]

Prints which checks reject which planted fault, whether sound architectures pass, what the lines that are
reported are worth, and how long the checks of one candidate take at the micro preset on one core. With
--genomes also how many of N random architectures of the grammar, all of them sound, are rejected.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

import msgspec
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from asi_lab.common import process
from asi_lab.engineer.contract import check_source
from asi_lab.lab.config import from_preset
from asi_lab.protocol import Reach
from asi_lab.records import Check
from asi_lab.researcher.grammar import Genome, canonical, is_valid, render
from asi_lab.researcher.grammar.genome import GENES
from asi_lab.settings import Settings
from asi_lab.trial.model import load_architecture
from asi_lab.trial.preflight import Exam, examine
from tests.zoo import Entry, faulty, sound

MICRO = from_preset("micro")
MIXED = msgspec.structs.replace(MICRO, train=msgspec.structs.replace(MICRO.train, precision="bf16"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--genomes", type=int, default=0)
    wanted = parser.parse_args().genomes
    torch.set_num_threads(1)
    process.tune_allocator()
    examined(sound()[0], MICRO)  # warms up
    passed = [(entry, *examined(entry, MICRO)) for entry in sound()]
    rejected = [(entry, *examined(entry, MIXED if entry.check == "dtype" else MICRO)) for entry in faulty()]
    print(f"torch {torch.__version__}, one thread, preset micro")
    summary(passed, rejected)
    if wanted:
        genomes(wanted)
    confusion(rejected)
    seconds(passed)
    faults(rejected)


def examined(entry: Entry, settings: Settings) -> tuple[list[Check], float]:
    """All verdicts of one architecture, and the wall time; a static fault ends it, as in a search."""
    static = list(check_source(entry.source))
    if not all(check.passed for check in static):
        return static, 0.0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "architecture.py")
        path.write_text(entry.source)
        started = time.perf_counter()
        exam = Exam(
            load_architecture(path),
            str(path),
            settings.model,
            settings.train,
            settings.limits,
            settings.data.vocabulary,
            torch.device("cpu"),
            0,
            Reach.of(settings.evaluate),
        )
        return [*static, *(check for check, _ in examine(exam))], time.perf_counter() - started


def failed(checks: list[Check]) -> list[str]:
    return [check.name for check in checks if not check.passed]


Results = list[tuple[Entry, list[Check], float]]


def summary(passed: Results, rejected: Results) -> None:
    alarms = [entry.name for entry, checks, _ in passed if failed(checks)]
    missed = [entry.name for entry, checks, _ in rejected if not failed(checks)]
    meant = [entry.name for entry, checks, _ in rejected if entry.check in failed(checks)]
    alone = [entry.name for entry, checks, _ in rejected if failed(checks) == [entry.check]]
    lines = [
        (entry.line, check.line)
        for entry, checks, _ in rejected
        for check in checks
        if check.name == entry.check and check.line is not None and entry.line is not None
    ]
    exact = sum(marked == told for marked, told in lines)
    print("\n| | count | |\n|---|---:|---|")
    print(f"| sound architectures | {len(passed)} | |")
    print(f"| of them rejected | {len(alarms)} | {', '.join(alarms)} |")
    print(f"| planted faults | {len(rejected)} | |")
    print(f"| of them not rejected | {len(missed)} | {', '.join(missed)} |")
    print(f"| rejected by the check meant for it | {len(meant)} | |")
    print(f"| rejected by that check alone | {len(alone)} | |")
    print(f"| a line was told, and the fault has one | {len(lines)} | |")
    print(f"| the line told is the fault's | {exact} | |")


def genomes(wanted: int) -> None:
    """Random architectures of the grammar: sound by construction, and of other kinds than the zoo's."""
    rng, drawn = random.Random(0), dict[Genome, None]()
    while len(drawn) < wanted:
        genome = Genome(**{gene: rng.choice(values) for gene, values in GENES.items()})
        if is_valid(genome) is None:
            drawn[canonical(genome)] = None
    rejected, times = [], []
    for number, genome in enumerate(drawn):
        entry = Entry(f"genome {number}", "", "", render(genome, f"delta_net_{number}"))
        checks, seconds = examined(entry, MICRO)
        times.append(seconds)
        rejected += [f"{entry.name} by {name}" for name in failed(checks)]
    print(
        f"\nOf {wanted} random architectures of the grammar {len(rejected)} were rejected"
        f"{': ' if rejected else ''}{', '.join(rejected)}. Seconds for each: median "
        f"{statistics.median(times):.1f}, longest {max(times):.1f}."
    )


def confusion(rejected: Results) -> None:
    """Faults by the check meant for them, against the checks that rejected them."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    totals: Counter[str] = Counter()
    for entry, checks, _ in rejected:
        totals[entry.check] += 1
        counts[entry.check].update(failed(checks))
    print("\n| meant for | faults | rejected by it | rejected by others too |\n|---|---:|---:|---|")
    for name in totals:
        others = ", ".join(f"{other} {n}" for other, n in counts[name].most_common() if other != name)
        print(f"| {name} | {totals[name]} | {counts[name][name]} | {others} |")


def seconds(passed: Results) -> None:
    """What the checks of a sound candidate take; rejected ones may end sooner or take longer."""
    times = sorted(time for _, _, time in passed)
    by_check: dict[str, list[float]] = defaultdict(list)
    for _, checks, _ in passed:
        for check in checks:
            by_check[check.name].append(check.seconds)
    print(f"\nSeconds for a sound candidate: median {statistics.median(times):.1f}, longest {times[-1]:.1f}.")
    slowest = sorted(passed, key=lambda result: -result[2])[:3]
    print(f"The longest: {', '.join(f'{entry.name} {time:.1f}' for entry, _, time in slowest)}.")
    print("\n| check | median s | longest s |\n|---|---:|---:|")
    for name, found in by_check.items():
        if max(found) >= 0.005:
            print(f"| {name} | {statistics.median(found):.2f} | {max(found):.2f} |")


def faults(rejected: Results) -> None:
    print("\n| fault | meant for | rejected by | what it is |\n|---|---|---|---|")
    for entry, checks, _ in sorted(rejected, key=lambda result: (result[0].check, result[0].name)):
        print(f"| {entry.name} | {entry.check} | {', '.join(failed(checks))} | {entry.summary} |")


if __name__ == "__main__":
    main()
