"""Runs all drills on faults and counts them: python benchmarks/faults.py [--fast]

A drill is one fault at one place, with an exact state expected afterwards. --fast leaves out the slow ones.
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
PLACES = ("tests/faults", "tests/engineer/test_run.py", "tests/engineer/test_supervision.py")
TRIALS = {
    "test_run": "Real trials killed, hanging, flooding, lying, leaking and looking ahead",
    "test_supervision": "Deaths and lies of trials and scorers, scripted",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fast", action="store_true")
    marks = "not slow" if parser.parse_args().fast else "slow or not slow"
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        command = [sys.executable, "-m", "pytest", "-q", "-m", marks, f"--junitxml={report}", *PLACES]
        subprocess.run(command, cwd=ROOT, check=False, stdout=sys.stderr)
        cases = ET.parse(report).getroot().iter("testcase")
        counts: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
        for case in cases:
            drills = sum(int(p.get("value", 1)) for p in case.iter("property") if p.get("name") == "drills")
            failed = any(case.find(kind) is not None for kind in ("failure", "error"))
            row = counts[case.get("classname", "").split(".")[-1]]
            if case.find("skipped") is not None:
                row[3] += 1
                continue
            row[0] += 1
            row[1] += drills or 1
            row[2] += 0 if failed else drills or 1
    print("| fault | tests | drills | survived | not run here |\n|---|---:|---:|---:|---:|")
    for module, (tests, drills, survived, skipped) in sorted(counts.items()):
        print(f"| {title(module)} | {tests} | {drills:,} | {survived:,} | {skipped} |")
    totals = [sum(row[i] for row in counts.values()) for i in range(4)]
    print(f"| all | {totals[0]} | {totals[1]:,} | {totals[2]:,} | {totals[3]} |")


def title(module: str) -> str:
    """The first sentence of a test module's docstring."""
    if module in TRIALS:
        return TRIALS[module]
    text = (ROOT / "tests/faults" / f"{module}.py").read_text()
    return text.split('"""')[1].strip().split("\n")[0].rstrip(".")


if __name__ == "__main__":
    main()
