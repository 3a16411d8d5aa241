"""Runs all drills on faults and counts them: python benchmarks/faults.py [--fast | --report FILE]

A drill is one fault at one place, with an exact state expected afterwards. --fast leaves out the slow ones;
--report counts those in the report of a run of the tests (pytest --junitxml) and runs none.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLACES = ("tests/faults", "tests/engineer/test_supervise.py", "tests/engineer/test_supervision.py")
TRIALS = {
    "test_supervise": "Real trials killed, hanging, flooding, lying, leaking and looking ahead",
    "test_supervision": "Deaths and lies of trials and scorers, scripted",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("--report", type=Path)
    arguments = parser.parse_args()
    if arguments.report is not None:
        counts = counted(arguments.report)
    else:
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder, "report.xml")
            marks = "not slow" if arguments.fast else "slow or not slow"
            command = [sys.executable, "-m", "pytest", "-q", "-m", marks, f"--junitxml={report}", *PLACES]
            subprocess.run(command, cwd=ROOT, check=False, stdout=sys.stderr)
            counts = counted(report)
    print("| fault | tests | drills | survived | not run here |\n|---|---:|---:|---:|---:|")
    for module, (tests, drills, survived, skipped) in sorted(counts.items()):
        print(f"| {title(module)} | {tests} | {drills:,} | {survived:,} | {skipped} |")
    totals = [sum(row[i] for row in counts.values()) for i in range(4)]
    print(f"| all | {totals[0]} | {totals[1]:,} | {totals[2]:,} | {totals[3]} |")


def counted(report: Path) -> dict[str, list[int]]:
    """Tests, drills, drills survived and tests skipped, by module."""
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    modules = tuple(place.removesuffix(".py").replace("/", ".") for place in PLACES)
    for case in ET.parse(report).getroot().iter("testcase"):
        name = case.get("classname", "")
        if not name.startswith(modules):
            continue
        drills = sum(int(p.get("value", 1)) for p in case.iter("property") if p.get("name") == "drills")
        failed = any(case.find(kind) is not None for kind in ("failure", "error"))
        row = counts[name.split(".")[-1]]
        if case.find("skipped") is not None:
            row[3] += 1
            continue
        row[0] += 1
        row[1] += drills or 1
        row[2] += 0 if failed else drills or 1
    return counts


def title(module: str) -> str:
    """The first sentence of a test module's docstring."""
    if module in TRIALS:
        return TRIALS[module]
    text = (ROOT / "tests/faults" / f"{module}.py").read_text()
    return text.split('"""')[1].strip().split("\n")[0].rstrip(".")


if __name__ == "__main__":
    main()
