"""The baselines of a lab and the noise floor they give.

Both references, DeltaNet (the seed) and Gated DeltaNet, are trained with several initialisation
seeds on the same data in the same order. The first `seeds` runs of DeltaNet are the baseline of
record, which never changes, so that fitness is comparable over the whole lab; further seeds only
sharpen the noise floor and the mean that claims of a gain are tested against.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, variance

import msgspec

from asi_lab.errors import UsageError
from asi_lab.records import BaselineRun, Evaluation, Noise, TaskResult, Training
from asi_lab.scoring import fitness
from asi_lab.scoring.fitness import Reference, composite, judged
from asi_lab.settings import BaselineSettings, Settings

SEED_ARCHITECTURE = "delta_net"
UPPER_REFERENCE = "gated_delta_net"
ARCHITECTURES = (SEED_ARCHITECTURE, UPPER_REFERENCE)
TITLES = {SEED_ARCHITECTURE: "DeltaNet", UPPER_REFERENCE: "Gated DeltaNet"}
MARKS = {SEED_ARCHITECTURE: 5.0, UPPER_REFERENCE: 10.0}
"""The judge's marks of the two, by definition of its scale; where they do not differ beyond noise, both have
the first."""


class Anchor(msgspec.Struct, frozen=True):
    """Means of one baseline that the judge's marks hang on. Loss in nats per token."""

    loss: float
    params: int
    tokens_per_second: float


def due(settings: BaselineSettings, candidates: int, runs: Sequence[BaselineRun]) -> list[tuple[str, int]]:
    """The runs (architecture, seed index) still missing once `candidates` candidates are finished.

    Depends on counts alone, so a resumed search measures the same runs at the same places.
    """
    wanted = min(settings.max_seeds, settings.seeds + candidates // settings.grow_every)
    return missing([(name, i) for i in range(wanted) for name in ARCHITECTURES], runs)


def missing(wanted: Sequence[tuple[str, int]], runs: Sequence[BaselineRun]) -> list[tuple[str, int]]:
    """Those of the wanted runs (architecture, seed index) that are not among the finished ones, in order."""
    have = {(run.architecture, run.seed_index) for run in runs}
    return [run for run in wanted if run not in have]


class Baselines:
    """What the finished baseline runs say."""

    def __init__(self, settings: Settings, runs: Sequence[BaselineRun]) -> None:
        self.settings = settings.baselines
        self.runs = {
            name: sorted((r for r in runs if r.architecture == name), key=lambda r: r.seed_index)
            for name in ARCHITECTURES
        }
        missing = [name for name in ARCHITECTURES if len(self.runs[name]) < self.settings.seeds]
        if missing:
            raise UsageError(
                f"Baselines: expected {self.settings.seeds} runs of each; {', '.join(missing)} has fewer. "
                "Start the search: it measures them first."
            )
        self.reference: Reference = fitness.reference_of(
            self._record(SEED_ARCHITECTURE), settings.fitness.scale
        )
        self.mean: Reference = fitness.reference_of(
            self.evaluations(SEED_ARCHITECTURE), settings.fitness.scale
        )

    def evaluations(self, architecture: str) -> list[Evaluation]:
        """All evaluated runs of one architecture, by seed index."""
        found = [run.evidence.evaluation for run in self.runs[architecture]]
        return [evaluation for evaluation in found if evaluation is not None]

    def _record(self, architecture: str, whole: bool = False) -> list[Evaluation]:
        return self.evaluations(architecture)[: None if whole else self.settings.seeds]

    def _runs(self, architecture: str, whole: bool) -> list[BaselineRun]:
        return self.runs[architecture][: None if whole else self.settings.seeds]

    def anchor(self, architecture: str, *, whole: bool = False) -> Anchor:
        """Means over the runs of record, which fitness is computed from; over all of them if `whole`, which
        verdicts are given by."""
        trainings = [run.evidence.training for run in self._runs(architecture, whole)]
        measured = [training for training in trainings if training is not None]
        return Anchor(
            loss=fmean(e.loss for e in self._record(architecture, whole)),
            params=measured[0].params,
            tokens_per_second=fmean(training.tokens_per_second for training in measured),
        )

    def most_parameters(self, ratio: float) -> int:
        """The most parameters that a candidate's whole model may have: `ratio` times those of DeltaNet."""
        return int(self.anchor(SEED_ARCHITECTURE).params * ratio)

    def anchors(self) -> tuple[Anchor, Anchor]:
        """The two ends of the judge's scale: DeltaNet and Gated DeltaNet."""
        return self.anchor(SEED_ARCHITECTURE), self.anchor(UPPER_REFERENCE)

    def curve(self, architecture: str, *, whole: bool = False) -> dict[int, float]:
        """Mean held-out loss (nats per token) over the runs of record, or the `whole` of them, by steps done,
        where all have one."""
        curves = [{h.step: h.loss for h in run.evidence.held_out} for run in self._runs(architecture, whole)]
        common = set.intersection(*({*curve} for curve in curves))
        return {step: fmean(curve[step] for curve in curves) for step in sorted(common)}

    def speed_noise(self) -> float:
        """Pooled sd of the tokens per second in training."""
        trainings = [[run.evidence.training for run in runs] for runs in self.runs.values()]
        return pooled([[t.tokens_per_second for t in group if t is not None] for group in trainings])

    def tasks(self, architecture: str, *, whole: bool = False) -> dict[str, TaskResult]:
        """Tasks with the mean of their scores, and of the curves of probes, over the runs of record, or the
        `whole` of them; lm-eval's own figures are left out."""
        evaluations = self._record(architecture, whole)
        means = fitness.reference_of(evaluations, self.reference.scale).tasks
        return {
            task.task: msgspec.structs.replace(
                task,
                score=means[task.task],
                metrics={},
                curve=fitness.mean_curve([e.result_of(task.task) for e in evaluations]),
            )
            for task in evaluations[0].tasks
        }

    def noise(self) -> Noise:
        """The noise floor, pooled over both baselines and all their runs."""
        groups = [self.evaluations(name) for name in ARCHITECTURES]
        freedom = sum(len(group) - 1 for group in groups)
        loss = pooled([[e.loss for e in group] for group in groups])
        low, high = sd_interval(loss, freedom)
        lower, upper = (self.anchor(name) for name in ARCHITECTURES)
        scale = 1.0 if self.separated() else 0.0  # as the judge: without a scale, no points
        points = [[scale * performance_points(e.loss, lower, upper) for e in group] for group in groups]
        return Noise(
            loss=loss,
            benchmark=pooled([[fitness.benchmark_gain(e, self.reference) for e in g] for g in groups]),
            fitness=pooled(
                [
                    [
                        composite(fitness.parts(e, self.reference), judged(p))
                        for e, p in zip(g, ps, strict=True)
                    ]
                    for g, ps in zip(groups, points, strict=True)
                ]
            ),
            freedom=freedom,
            runs=len(groups[0]),
            loss_low=low,
            loss_high=high,
            judge=pooled(points),
        )

    def marks(self) -> dict[int, tuple[float, float]]:
        """By steps done at a mark: DeltaNet's mean held-out loss there (nats per token), and its sd. Marks
        where runs do not differ are left out."""
        curves = {
            name: [{h.step: h.loss for h in run.evidence.held_out} for run in runs]
            for name, runs in self.runs.items()
        }
        common = set.intersection(*({*curve} for curves_of in curves.values() for curve in curves_of))
        found = {}
        for step, loss in self.curve(SEED_ARCHITECTURE).items():
            if step in common:
                noise = pooled([[curve[step] for curve in curves_of] for curves_of in curves.values()])
                if noise > 0:
                    found[step] = (loss, noise)
        return found

    def seconds_per_step(self) -> float | None:
        """Mean wall time of a training step of DeltaNet, over the runs of record."""
        times = [training.step_seconds for training in self._trainings() if training.step_seconds > 0]
        return fmean(times) if times else None

    def cpu_seconds(self) -> float | None:
        """Mean processor time of a whole trial of DeltaNet, over the runs of record."""
        times = [training.cpu_seconds for training in self._trainings() if training.cpu_seconds > 0]
        return fmean(times) if times else None

    def _trainings(self) -> list[Training]:
        """What is known of the training in DeltaNet's runs of record."""
        found = [run.evidence.training for run in self._runs(SEED_ARCHITECTURE, whole=False)]
        return [training for training in found if training is not None]

    def task_noise(self) -> dict[str, float]:
        """Pooled sd of each task's relative gain."""
        groups = [self.evaluations(name) for name in ARCHITECTURES]
        return {
            task: pooled(
                [
                    [fitness.task_gain(t, self.reference) for e in g for t in e.tasks if t.task == task]
                    for g in groups
                ]
            )
            for task in self.reference.tasks
        }

    def separated(self) -> bool:
        """Whether the two baselines differ in loss beyond noise (two-sided t-test at 5 %)."""
        low, high = ([e.loss for e in self.evaluations(name)] for name in ARCHITECTURES)
        sd = pooled([low, high]) * math.sqrt(1 / len(low) + 1 / len(high))
        return abs(fmean(low) - fmean(high)) > t_quantile(0.975, len(low) + len(high) - 2) * sd


def performance_points(loss: float, lower: Anchor, upper: Anchor) -> float:
    """Points of the judge for a loss: 0 at DeltaNet's, 5 at Gated DeltaNet's, on a line through both.

    0 where Gated DeltaNet is not the better one: there is no scale then.
    """
    return 5.0 * (lower.loss - loss) / (lower.loss - upper.loss) if upper.loss < lower.loss else 0.0


def pooled(groups: Sequence[Sequence[float]]) -> float:
    """Standard deviation within groups, pooled over them."""
    freedom = sum(len(group) - 1 for group in groups)
    return math.sqrt(sum((len(group) - 1) * variance(group) for group in groups) / freedom)


def t_quantile(p: float, freedom: float) -> float:
    """Quantile of Student's t."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, p))


def sd_interval(sd: float, freedom: int) -> tuple[float, float]:
    """95 % interval of a standard deviation that was estimated with `freedom` degrees of freedom."""
    from scipy.special import chdtri

    return sd * math.sqrt(freedom / chdtri(freedom, 0.025)), sd * math.sqrt(freedom / chdtri(freedom, 0.975))


def telling(noise: Noise, against_mean: bool) -> float:
    """From how many standard deviations on a difference counts, at 5 %: against the mean of a baseline to one
    side, as `winning_margin`, between two single runs to both."""
    return t_quantile(0.95 if against_mean else 0.975, noise.freedom)


def winning_margin(noise: Noise, level: float = 0.05) -> float:
    """How far (nats per token) under the baseline's mean a single run must be to win at `level`.

    One-sided t quantile times sd * sqrt(1 + 1/n): a new single run against the mean of n runs.
    """
    return t_quantile(1 - level, noise.freedom) * noise.loss * math.sqrt(1 + 1 / noise.runs)
