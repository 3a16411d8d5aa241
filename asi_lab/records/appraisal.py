"""What is made of a measurement: noise, comparison, score, analysis."""

from __future__ import annotations

import msgspec


class Noise(msgspec.Struct, frozen=True):
    """The noise of one run: its standard deviation over seeds, as it is expected of an architecture that was
    run but once, from the runs of all references (`scoring.statistics`).

    `judge` is that of the mark, as far as the loss moves it; `fitness` takes in all three parts.
    `loss_low` and `loss_high` bound the loss sd at 95 % (chi-square); `freedom` are the degrees
    of freedom with which it is known; `runs` is the number of runs of the seed architecture.
    """

    loss: float
    benchmark: float
    fitness: float
    freedom: float
    runs: int
    loss_low: float
    loss_high: float
    judge: float = 0.0


class Against(msgspec.Struct, frozen=True):
    """How a loss stands to the mean of a reference's `runs` runs, in nats per token: `difference` is negative
    where it is lower, `sd` that of the difference by chance, `margin` how much lower it must be to beat the
    reference at 5 % (one-sided t-test)."""

    reference: str
    runs: int
    difference: float
    sd: float
    margin: float

    @property
    def is_better(self) -> bool:
        """Whether it beats the reference."""
        return self.difference < -self.margin

    @property
    def in_sd(self) -> float | None:
        """How much lower the loss is, in units of `sd`; None without noise."""
        return -self.difference / self.sd if self.sd > 0 else None


class RubricPart(msgspec.Struct, frozen=True):
    """One part of the judge's rubric: points added to DeltaNet's five, and why."""

    name: str
    points: float
    reason: str


class Judgement(msgspec.Struct, frozen=True):
    """The judge's mark in [1, 10]: DeltaNet is 5 and Gated DeltaNet is 10.

    `marks` are those of a judge that was asked several times; `mark` is their median. `beyond` is by how many
    points the mark would lie above 10 if the measured part for performance went on along its line.
    """

    mark: float
    parts: tuple[RubricPart, ...]
    judge: str
    marks: tuple[float, ...] = ()
    beyond: float = 0.0


class Score(msgspec.Struct, frozen=True, omit_defaults=True):
    """Fitness and its three parts, each in [0, 1] (paper sections 2.1 and 3.1).

    The gains are relative improvements over the seed baseline, before clamping. `against` is how the loss
    stood to the references when it was scored, the bar first. `spread` is the sd of one run's fitness at this
    place of its scale. Records of older rules have neither, and their commits leave them out. Candidates are
    ranked by `merit`: the fitness, and above the end of the judge's scale what the measured part adds to it.
    """

    fitness: float
    loss_part: float
    benchmark_part: float
    judge_part: float
    loss_gain: float
    benchmark_gain: float
    judgement: Judgement
    noise: Noise
    against: tuple[Against, ...] = ()
    spread: float = 0.0

    @property
    def merit(self) -> float:
        """What candidates are ranked by."""
        return merit(self.fitness, self.judgement.beyond)


def merit(fitness: float, beyond: float) -> float:
    """The fitness if the judge's scale, a ninth of a third of it a point, had no end at 10."""
    return fitness + beyond / 27


class Difference(msgspec.Struct, frozen=True):
    """One row of the ablation table: this candidate minus another, in units of the noise floor.

    `loss` is in nats (negative is better), `benchmark` and `fitness` are positive when better.
    """

    against: str
    relation: str
    loss: float
    benchmark: float
    fitness: float
    loss_in_noise: float
    benchmark_in_noise: float
    fitness_in_noise: float


FAMILIES = (
    *("state_update", "gating", "convolution", "routing", "normalisation", "feature_map"),
    *("multi_scale", "residual", "positional", "other"),
)
"""What kinds of mechanisms a layer may be made of."""

ORIGINS = ("cognition", "analysis", "originality")
"""Where an idea may come from: papers, the lab's own experience, or neither (paper, section 4.3)."""


class Component(msgspec.Struct, frozen=True):
    """One mechanism of a layer: its family, one of `FAMILIES`, and a label of a few words."""

    family: str
    label: str


class Origin(msgspec.Struct, frozen=True):
    """Where an idea came from, one of `ORIGINS`, and why one thinks so."""

    origin: str
    reason: str = ""


class Analysis(msgspec.Struct, frozen=True):
    """The analyst's text (markdown) with the table it rests on and the weaknesses it names.

    `components` are what the layer is made of, `origin` is where a language model's idea came from; empty
    where nobody said.
    """

    text: str
    summary: str
    ablation: tuple[Difference, ...]
    weaknesses: tuple[str, ...]
    analyst: str
    components: tuple[Component, ...] = ()
    origin: Origin | None = None
