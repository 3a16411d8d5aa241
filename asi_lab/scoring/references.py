"""The packaged reference architectures; two are the seed of a lab and the upper end of the judge's scale."""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib import resources

import msgspec

from asi_lab.common.syntax import code_hash
from asi_lab.errors import ConfigError
from asi_lab.protocol import ARCHITECTURE_FILE
from asi_lab.records import (
    RULES,
    SEED_ID,
    BaselineRun,
    Candidate,
    CandidateState,
    Evidence,
    Judgement,
    Proposal,
)
from asi_lab.scoring import fitness
from asi_lab.scoring.baselines import ARCHITECTURES, MIDPOINT, SEED_ARCHITECTURE, UPPER_REFERENCE, Baselines
from asi_lab.settings import Settings

EIGHT = (
    *ARCHITECTURES,
    "ada_multi_path_gate_net",
    "content_sharp_router",
    "fusion_gated_fir_net",
    "hier_gate_net",
    "mamba2",
    "path_gate_fusion_net",
)
"""Those that race unless others are named: DeltaNet, Gated DeltaNet, Mamba-2 and the five discoveries of the
ASI-ARCH paper (arXiv 2507.18074)."""


def names() -> list[str]:
    """All of them, the two baselines of every lab first."""
    folders = resources.files("asi_lab.lineage_repo").iterdir()
    found = [folder.name for folder in folders if (folder / ARCHITECTURE_FILE).is_file()]
    return [*ARCHITECTURES, *sorted(set(found) - set(ARCHITECTURES))]


def source(architecture: str) -> str:
    """Source of a reference architecture, one of `names`."""
    folder = resources.files("asi_lab.lineage_repo")
    return (folder / architecture / ARCHITECTURE_FILE).read_text(encoding="utf-8")


def check(settings: Settings) -> None:
    """Raises `ConfigError` where `baselines.references` names what is none."""
    if unknown := [name for name in settings.baselines.references if name not in names()]:
        known = ", ".join(names())
        raise ConfigError(f"lab.toml: baselines.references: expected some of {known}; found {unknown[0]!r}.")


def ends(known: Baselines) -> tuple[str, str]:
    """Sources of DeltaNet and of the upper end of the judge's scale."""
    return source(SEED_ARCHITECTURE), source(known.top)


def seed() -> Proposal:
    """DeltaNet, candidate 0 of every lab."""
    return Proposal(
        name=SEED_ARCHITECTURE,
        motivation=(
            "The seed of the search: DeltaNet (arXiv 2406.06484), linear attention whose memory is corrected "
            "by the delta rule. Its figures in this lab are means over several seeds."
        ),
        change="the seed architecture",
        code=source(SEED_ARCHITECTURE),
        researcher="reference",
        code_hash=code_hash(source(SEED_ARCHITECTURE)),
    )


def upper() -> Proposal:
    """Gated DeltaNet, the second baseline."""
    return Proposal(
        name=UPPER_REFERENCE,
        motivation=(
            "The upper reference: Gated DeltaNet (arXiv 2412.06464), the delta rule with a data-dependent "
            "decay of the memory and a gated output."
        ),
        change="a decay of the memory and a gate of the output",
        code=source(UPPER_REFERENCE),
        researcher="reference",
        code_hash=code_hash(source(UPPER_REFERENCE)),
    )


def seed_candidate(settings: Settings, runs: Sequence[BaselineRun]) -> Candidate:
    """Candidate 0: the seed architecture, with the baseline of record as its result."""
    known = Baselines(settings, runs)
    first = known.runs[SEED_ARCHITECTURE][0].evidence
    tasks = tuple(known.tasks(SEED_ARCHITECTURE).values())
    mean = msgspec.structs.replace(first.measured, loss=known.reference.loss, tasks=tasks)
    now = time.time()
    return Candidate(
        id=SEED_ID,
        state=CandidateState.DONE,
        created=now,
        updated=now,
        rules=RULES,
        proposal=seed(),
        evidence=Evidence(checks=first.checks, training=first.training, evaluation=mean, work=first.work),
        score=fitness.score(
            mean, known.reference, Judgement(MIDPOINT, (), "by definition of the scale"), known.noise()
        ),
    )
