"""Evidence without what differs from run to run: times, memory, and where a temporary file lay.

These figures stay in the store, where `asi-lab show` finds them.
"""

from __future__ import annotations

import re
from typing import Any

from asi_lab.records import CandidateState

S = CandidateState

MEASURED_BY_MACHINE = {
    "training": (
        *("seconds", "tokens_per_second", "step_seconds", "cpu_seconds", "compile_seconds"),
        *("peak_memory_mb", "matmul_rate", "joules"),
    ),
    "evaluation": ("seconds",),
    "held_out": ("seconds",),
    "checks": ("seconds",),
}
"""Figures of the evidence, by part, that the machine and its other work have a share in."""

TIMED_CHECKS = frozenset({"cost", "step_time", "compile_time", "processor_time"})
"""Checks whose value is a time; of them a verdict is left."""

ENDED_BY_MACHINE = frozenset({S.SLOW, S.TIMED_OUT, S.OUT_OF_MEMORY, S.INTERRUPTED})
"""Ends whose words tell of seconds or bytes."""

_OWN_FILE = re.compile(r'File "[^"\n]*/architecture\.py"')
_ADDRESS = re.compile(r"\b0x[0-9a-f]{6,}\b")
_DRAWN = re.compile(r"after \d+ tokens of (.*?) the next token's log probability is \S+ nats off")
"""Where an answer was compared is drawn anew each time."""


def strip(evidence: dict[str, Any], state: CandidateState) -> None:
    """Take such figures out of the evidence of a candidate that ended in `state`, given as plain values."""
    for part, names in MEASURED_BY_MACHINE.items():
        found = evidence[part]
        for told in found if isinstance(found, list | tuple) else [found or {}]:
            for name in names:
                told.pop(name, None)
    for check in evidence["checks"]:
        if check["name"] in TIMED_CHECKS:
            check["value"], check["detail"] = None, ""
        if check["name"] == "processor_time":  # its limit is a time, too
            check["tolerance"] = None
        check["detail"] = _steady(check["detail"])
    evidence["error"] = error(state, evidence["error"])


def error(state: CandidateState, text: str) -> str:
    """The error of a candidate that ended in `state`: its file without a folder, objects without addresses;
    the state alone where the words are about time or memory."""
    if state in ENDED_BY_MACHINE and text:
        return f"{state.value}: the store has the figures"
    return _steady(text)


def _steady(text: str) -> str:
    steady = _ADDRESS.sub("0x", _OWN_FILE.sub('File "architecture.py"', text))
    return _DRAWN.sub(r"in \1 a log probability is off", steady)
