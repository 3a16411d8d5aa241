"""What claims are made of: promotions, and runs that nothing else is made of."""

from __future__ import annotations

from typing import NewType

import msgspec

from asi_lab.records.evidence import BaselineRun, CandidateState, Evidence, Run

FreshLoss = NewType("FreshLoss", float)
"""A held-out loss in nats per token that may enter a claim: of a fresh run, on the text kept for claims."""


class FreshRun(msgspec.Struct, frozen=True):
    """A run with a fresh seed and an order of the data of its own, of a promoted candidate or of the bar.

    `who` is a candidate's four digits or a reference's name, `rate` the learning rate over the preset's. Runs
    whose index is one of tuning's are measured on the text that the search chose by, and enter no claim.
    `rung` is the scale it was made at, empty for the lab's own.
    """

    who: str
    index: int
    evidence: Evidence
    rate: float = 1.0
    rung: str = ""

    @property
    def run(self) -> Run:
        """Which one it is."""
        return Run(self.who, self.index, self.rate)

    @property
    def failure(self) -> CandidateState | None:
        """How it failed; None for one that gave a loss."""
        return self.evidence.failure

    @property
    def is_tuning(self) -> bool:
        """Whether it only tells the best learning rate."""
        return self.run.is_tuning

    @property
    def loss(self) -> FreshLoss:
        """Its held-out loss.

        Raises:
            ValueError: it failed, or is one of tuning.
        """
        if self.is_tuning or self.evidence.evaluation is None:
            raise ValueError(f"{self.run.words} gave no loss that counts")
        return FreshLoss(self.evidence.evaluation.loss)

    @property
    def for_tuning(self) -> BaselineRun:
        """The same as one of those that learning rates are compared by."""
        return BaselineRun(self.who, self.index, self.evidence, self.rate)


class Terms(msgspec.Struct, frozen=True):
    """What the claims at one scale are made under, from its first promotion on: the reference that is the
    bar, how many fresh runs it has, whether it and the candidates are tuned first, and how alike variances
    are taken to be while the runs are few, in degrees of freedom. `beside` are the references that are run
    as well, to be shown beside the claims."""

    bar: str
    bar_runs: int
    tune: bool
    freedom: float
    beside: tuple[str, ...] = ()


class Promotion(msgspec.Struct, frozen=True):
    """That a candidate is to be verified. The order of the numbers, from 1 on, is that in which claims are
    tagged; `time` is in seconds since the epoch. Of one that was `drawn` by lot nothing is claimed."""

    number: int
    candidate: int
    time: float
    drawn: bool = False


class Promoted(msgspec.Struct, frozen=True):
    """All promotions at one scale, and the terms that the first one fixed."""

    terms: Terms
    promotions: tuple[Promotion, ...]
