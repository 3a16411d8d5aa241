"""Which counts of operations and bytes are believed.

A candidate's own code runs in the process that counts, so it may hide what it does. Processor seconds are
the engine's figure, but they rise beside a busy neighbour. So they only say whether a count can be true:
where the processor finds a candidate more than `CONTRADICTED` times as dear, over DeltaNet, as its count
does, the count is not used. Honest candidates lie between 0.9 and 1.3, and busy neighbours made at most 1.4
times of it (docs/benchmarks.md).
"""

from __future__ import annotations

from asi_lab.records import Evidence, Work
from asi_lab.scoring.baselines import Anchor

CONTRADICTED = 3.0
"""How many times as dear as counted, both over DeltaNet, a candidate may be by its processor seconds."""


def is_contradicted(evidence: Evidence, lower: Anchor) -> bool:
    """Whether the processor seconds of its training rule out what was counted of a candidate. `lower` is
    DeltaNet. Both are in the record, so a search that goes on judges the same."""
    training = evidence.training
    if evidence.work is None or lower.work is None or training is None:
        return False
    counted = evidence.work.size / lower.work.size
    return lower.cpu_seconds > 0 and training.cpu_seconds > CONTRADICTED * counted * lower.cpu_seconds


def believed(evidence: Evidence, lower: Anchor) -> Work | None:
    """What was counted of a candidate; None where nothing was, or where it is contradicted."""
    return None if is_contradicted(evidence, lower) else evidence.work
