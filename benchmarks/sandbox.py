"""Every attack of the tests at every level of the sandbox: python benchmarks/sandbox.py

Each attack runs as the program of a trial under the supervision of the engine. Afterwards the world is looked
at: was the file read, changed, the other program killed, did anything outlive the trial?
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from asi_lab import sandbox
from asi_lab.sandbox import Level
from tests.sandbox.attacks import ATTACKS, Attack, is_safe, perform


def main() -> None:
    findings = {finding.level: finding for finding in sandbox.probe()}
    who = "root" if os.geteuid() == 0 else "an ordinary user"
    print(f"Linux {platform.release()}, started by {who}; each cell was run.\n")
    for finding in findings.values():
        state = "works here" if finding.holds else f"does not work here: {finding.reason}"
        print(f"- {finding.level.value}: {state}")
    print(f"\n| attack | {' | '.join(level.value for level in Level)} |")
    print(f"|---|{'---|' * len(Level)}")
    surprises = 0
    for attack in ATTACKS:
        cells = [cell(attack, level) if findings[level].holds else "-" for level in Level]
        surprises += sum("!" in text for text in cells)
        print(f"| {attack.name} | {' | '.join(cells)} |", flush=True)
    print(f"\n{surprises} outcomes differ from what is expected (marked with !).")


def cell(attack: Attack, level: Level) -> str:
    """`held` or `open`, marked where that is not what is expected."""
    if not is_safe(attack, level):
        return "not run"
    with tempfile.TemporaryDirectory(prefix="asi-lab-attack-") as folder:
        Path(folder).chmod(0o755)
        held, _ = perform(attack, level, Path(folder))
    return ("held" if held else "open") + ("" if held == (level not in attack.open_at) else " !")


if __name__ == "__main__":
    main()
