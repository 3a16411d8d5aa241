"""The values that flow through the loop, one per arrow. All are immutable.

    pool.draw -> Draw -> researcher.propose -> Proposal -> engineer.run -> Evidence
    -> fitness.score -> Score -> analyst.explain -> Analysis -> store, lineage

A `Candidate` is the record that collects them; `Candidate.state` says how far it came.
"""

from asi_lab.records.appraisal import (
    FAMILIES,
    ORIGINS,
    Against,
    Analysis,
    Component,
    Difference,
    Judgement,
    Noise,
    Origin,
    RubricPart,
    Score,
    merit,
)
from asi_lab.records.candidate import (
    RULES,
    SEED_ID,
    Candidate,
    Cognition,
    Draw,
    Neighbour,
    PoolEntry,
    Proposal,
    Repair,
)
from asi_lab.records.evidence import (
    ACCURACIES,
    CHOICE_PROBABILITY,
    TUNING_SEED,
    BaselineRun,
    CandidateState,
    Check,
    Evaluation,
    Evidence,
    HeldOut,
    Run,
    TaskResult,
    Training,
    Work,
)
from asi_lab.records.verification import FreshLoss, FreshRun, Promoted, Promotion, Terms

__all__ = [
    "ACCURACIES",
    "CHOICE_PROBABILITY",
    "FAMILIES",
    "ORIGINS",
    "RULES",
    "SEED_ID",
    "TUNING_SEED",
    "Against",
    "Analysis",
    "BaselineRun",
    "Candidate",
    "CandidateState",
    "Check",
    "Cognition",
    "Component",
    "Difference",
    "Draw",
    "Evaluation",
    "Evidence",
    "FreshLoss",
    "FreshRun",
    "HeldOut",
    "Judgement",
    "Neighbour",
    "Noise",
    "Origin",
    "PoolEntry",
    "Promoted",
    "Promotion",
    "Proposal",
    "Repair",
    "RubricPart",
    "Run",
    "Score",
    "TaskResult",
    "Terms",
    "Training",
    "Work",
    "merit",
]
