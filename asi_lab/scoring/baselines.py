"""The references that a lab measures itself, and the noise that their runs show.

DeltaNet (the seed), Gated DeltaNet and the lab's bar are trained with several initialisation seeds on the
same data in the same order. The first `seeds` runs of DeltaNet are the baseline of record, which never
changes, so that fitness is comparable over the whole lab; further seeds only sharpen what is known of noise,
and the means that claims of a gain are tested against. The bar is what a candidate has to beat to be called
better: the best reference, by a recorded study where the preset names one.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence
from statistics import fmean
from typing import Self

import msgspec

from asi_lab.errors import UsageError
from asi_lab.records import (
    Against,
    BaselineRun,
    CandidateState,
    Evaluation,
    Noise,
    TaskResult,
    Training,
    Work,
)
from asi_lab.scoring import fitness
from asi_lab.scoring.fitness import Reference, composite, judged
from asi_lab.scoring.statistics import (
    Prior,
    Spread,
    prior_of,
    sd_interval,
    t_quantile,
)
from asi_lab.settings import BaselineSettings, Settings

SEED_ARCHITECTURE = "delta_net"
UPPER_REFERENCE = "gated_delta_net"
ARCHITECTURES = (SEED_ARCHITECTURE, UPPER_REFERENCE)
TITLES = {
    SEED_ARCHITECTURE: "DeltaNet",
    UPPER_REFERENCE: "Gated DeltaNet",
    "mamba2": "Mamba-2",
    "path_gate_fusion_net": "PathGateFusionNet",
    "content_sharp_router": "ContentSharpRouter",
    "fusion_gated_fir_net": "FusionGatedFIRNet",
    "hier_gate_net": "HierGateNet",
    "ada_multi_path_gate_net": "AdaMultiPathGateNet",
    "kimi_delta_attention": "Kimi Delta Attention",
    "gated_delta_product": "Gated DeltaProduct",
    "comba": "Comba",
    "rwkv7": "RWKV-7",
    "gla": "GLA",
    "hgrn2": "HGRN2",
    "mamba3": "Mamba-3",
}
"""What the packaged references are called."""
LOWEST, MIDPOINT, HIGHEST = 1.0, 5.0, 10.0
"""Marks of the judge: DeltaNet has the second by definition, and the upper end of the scale the third; where
the two do not differ beyond noise, both have the second."""


class Anchor(msgspec.Struct, frozen=True):
    """Means of one reference that the judge's marks hang on. Loss in nats per token; `work` is None where it
    was not counted; `cpu_seconds` are those of the whole training."""

    loss: float
    params: int
    work: Work | None = None
    cpu_seconds: float = 0.0
    title: str = TITLES[UPPER_REFERENCE]


def due(settings: BaselineSettings, candidates: int, runs: Sequence[BaselineRun]) -> list[tuple[str, int]]:
    """The runs (architecture, seed index) still missing once `candidates` candidates are finished.

    Depends on counts alone, so a resumed search measures the same runs at the same places. A reference that
    failed is left out.
    """
    wanted = min(settings.max_seeds, settings.seeds + candidates // settings.grow_every)
    names = [name for name in settings.references if name not in _left_out(settings, runs)]
    ended = [run for run in runs if not run.failure or (run.seed_index >= settings.seeds and has_failed(run))]
    return missing([(name, i) for i in range(wanted) for name in names], ended)


def has_failed(run: BaselineRun) -> bool:
    """Whether a run failed, and not because it was cut off from outside."""
    return run.evidence.failure not in (None, CandidateState.INTERRUPTED)


def may_be_left_out(run: BaselineRun) -> bool:
    """Whether a lab can do without the reference of a run: the judge's scale hangs on the others."""
    return run.architecture not in ARCHITECTURES


def _left_out(settings: BaselineSettings, runs: Sequence[BaselineRun]) -> set[str]:
    """References of which a run failed that the search was to begin with. One that fails later is lost alone:
    the lab's bar stays."""
    first = [run for run in runs if run.seed_index < settings.seeds]
    return {run.architecture for run in first if has_failed(run) and may_be_left_out(run)}


def missing(wanted: Sequence[tuple[str, int]], runs: Sequence[BaselineRun]) -> list[tuple[str, int]]:
    """Those of the wanted runs (architecture, seed index) that are not among the finished ones, in order."""
    have = {(run.architecture, run.seed_index) for run in runs}
    return [run for run in wanted if run not in have]


def complete(settings: BaselineSettings, runs: Sequence[BaselineRun]) -> list[str]:
    """The references of a lab that have as many runs as a search begins with, none of them failed; in their
    order."""
    count = Counter(run.architecture for run in runs if not run.failure)
    out = _left_out(settings, runs)
    return [name for name in settings.references if count[name] >= settings.seeds and name not in out]


class Baselines:
    """What the finished runs of a lab's references say."""

    def __init__(self, settings: Settings, runs: Sequence[BaselineRun]) -> None:
        """Raises `UsageError` where DeltaNet or Gated DeltaNet has too few runs."""
        self.settings, self._top = settings.baselines, settings.judge.top
        self.names = complete(self.settings, runs)
        self.runs = {
            name: sorted(
                (run for run in runs if run.architecture == name and not run.failure),
                key=lambda run: run.seed_index,
            )
            for name in self.names
        }
        missing = [name for name in ARCHITECTURES if name not in self.names]
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

    @classmethod
    def measured(cls, settings: Settings, runs: Sequence[BaselineRun]) -> Self | None:
        """The baselines, None as long as too few of their runs are finished."""
        whole = {*ARCHITECTURES} <= {*complete(settings.baselines, runs)}
        return cls(settings, runs) if whole else None

    @property
    def top(self) -> str:
        """The reference at which the judge's mark is 10."""
        return self.bar if self._top == "bar" else UPPER_REFERENCE

    @functools.cached_property
    def bar(self) -> str:
        """The reference that candidates have to beat: the one that the settings name, or where it failed that
        of the lowest mean loss over the runs of record. Neither changes in the life of a lab."""
        named = self.settings.bar
        return named if named in self.names else min(self.names, key=lambda name: self.anchor(name).loss)

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
        found = [run.evidence for run in self._runs(architecture, whole)]
        measured = [evidence.training for evidence in found if evidence.training is not None]
        counted = [evidence.work for evidence in found if evidence.work is not None]
        return Anchor(
            loss=fmean(e.loss for e in self._record(architecture, whole)),
            params=measured[0].params,
            work=Work(fmean(work.operations for work in counted), fmean(work.bytes for work in counted))
            if counted
            else None,
            cpu_seconds=fmean(training.cpu_seconds for training in measured),
            title=TITLES.get(architecture, architecture),
        )

    def most_parameters(self, ratio: float) -> int:
        """The most parameters that a candidate's whole model may have: `ratio` times those of DeltaNet."""
        return int(self.anchor(SEED_ARCHITECTURE).params * ratio)

    def anchors(self) -> tuple[Anchor, Anchor]:
        """The two ends of the judge's scale: DeltaNet and `top`."""
        return self.anchor(SEED_ARCHITECTURE), self.anchor(self.top)

    def curve(self, architecture: str, *, whole: bool = False) -> dict[int, float]:
        """Mean held-out loss (nats per token) over the runs of record, or the `whole` of them, by steps done,
        where all have one."""
        curves = [{h.step: h.loss for h in run.evidence.held_out} for run in self._runs(architecture, whole)]
        common = set.intersection(*({*curve} for curve in curves))
        return {step: fmean(curve[step] for curve in curves) for step in sorted(common)}

    def tasks(self, architecture: str, *, whole: bool = False) -> dict[str, TaskResult]:
        """Tasks with the means of their figures and curves, over the runs of record or the `whole` of
        them."""
        evaluations = self._record(architecture, whole)
        names = [task.task for task in evaluations[0].tasks]
        return {name: _mean([evaluation.result_of(name) for evaluation in evaluations]) for name in names}

    def noise(self) -> Noise:
        """How much one run varies of an architecture about as good as the bar that was run but once."""
        loss = self._one_run("loss")
        low, high = sd_interval(loss)
        return Noise(
            loss=loss.sd,
            benchmark=self._one_run("benchmark").sd,
            fitness=self._one_run("fitness").sd,
            freedom=loss.freedom,
            runs=len(self.runs[SEED_ARCHITECTURE]),
            loss_low=low,
            loss_high=high,
            judge=self._one_run("judge").sd,
        )

    def spread(self, figure: str, values: Sequence[float], architecture: str) -> Spread:
        """That of the difference between the mean of an architecture's runs, which gave these values, and the
        mean of a reference's. `figure` is `loss`, `benchmark` or `fitness`."""
        prior = self._priors[figure]
        if prior is None:
            return Spread(0.0, self._seen)
        return prior.difference(prior.of_mean(values), self._of_means[figure][architecture])

    def against(self, losses: Sequence[float], architecture: str) -> Against:
        """How an architecture that gave these losses, one a run, stands to a reference."""
        theirs = self._losses[architecture]
        spread = self.spread("loss", losses, architecture)
        difference = fmean(losses) - self._means[architecture]
        return Against(architecture, len(theirs), difference, spread.sd, spread.margin())

    def against_all(self, losses: Sequence[float]) -> tuple[Against, ...]:
        """`against` the bar, and then every other reference."""
        names = sorted(self.names, key=lambda name: name != self.bar)
        return tuple(self.against(losses, name) for name in names)

    def margin(self, architecture: str) -> float:
        """How far (nats per token) under a reference's mean one run must be to beat it at 5 %."""
        return self.against([self._means[self.bar]], architecture).margin

    def mark(self, architecture: str) -> float:
        """The judge's mark of a reference: by definition of the scale, or for others by its loss on it."""
        if architecture == SEED_ARCHITECTURE or not self.separated():
            return MIDPOINT
        if architecture == self.top:
            return HIGHEST
        points = performance_points(self._means[architecture], *self.anchors())
        return max(LOWEST, min(HIGHEST, MIDPOINT + points))

    def fitness(self, architecture: str) -> float:
        """The fitness of a reference, over the mean of its runs' measured parts."""
        measured = fmean(sum(fitness.parts(run, self.reference)) for run in self.evaluations(architecture))
        return composite([measured], judged(self.mark(architecture) - 1))

    def _one_run(self, figure: str) -> Spread:
        prior, values = self._priors[figure], self._values[figure][self.bar]
        return prior.moderated([fmean(values)]) if prior else Spread(0.0, self._seen)

    @property
    def _seen(self) -> int:
        return sum(len(runs) - 1 for runs in self.runs.values())

    @functools.cached_property
    def _losses(self) -> dict[str, list[float]]:
        return {name: [run.loss for run in self.evaluations(name)] for name in self.names}

    @functools.cached_property
    def _means(self) -> dict[str, float]:
        """Mean loss of each reference."""
        return {name: fmean(losses) for name, losses in self._losses.items()}

    @functools.cached_property
    def _of_means(self) -> dict[str, dict[str, Spread]]:
        """By figure and reference: the spread of the mean over its runs."""
        return {
            figure: {name: prior.of_mean(runs) for name, runs in self._values[figure].items()}
            for figure, prior in self._priors.items()
            if prior is not None
        }

    @functools.cached_property
    def _values(self) -> dict[str, dict[str, list[float]]]:
        """By figure and reference: what each run gave."""
        lower, upper = self.anchors()
        scale = 1.0 if self.separated() else 0.0  # as the judge: without a scale, no points
        runs = {name: self.evaluations(name) for name in self.names}
        points = {
            name: [scale * performance_points(run.loss, lower, upper) for run in group]
            for name, group in runs.items()
        }
        return {
            "loss": self._losses,
            "judge": points,
            "benchmark": {
                name: [fitness.benchmark_gain(run, self.reference) for run in group]
                for name, group in runs.items()
            },
            "fitness": {
                name: [
                    composite(fitness.parts(run, self.reference), judged(point))
                    for run, point in zip(group, points[name], strict=True)
                ]
                for name, group in runs.items()
            },
        }

    @functools.cached_property
    def _loss_prior(self) -> Prior | None:
        return self._prior([*self._losses.values()])

    @functools.cached_property
    def _priors(self) -> dict[str, Prior | None]:
        others = {name: groups for name, groups in self._values.items() if name != "loss"}
        return {"loss": self._loss_prior} | {
            figure: self._prior([*groups.values()]) for figure, groups in others.items()
        }

    def _prior(self, groups: Sequence[Sequence[float]]) -> Prior | None:
        return prior_of(groups, self.settings.noise_freedom)

    def _of_any(self, groups: Sequence[Sequence[float]]) -> Spread:
        """The spread of one run of an architecture in the middle of these."""
        prior = self._prior(groups)
        return prior.moderated([fmean(map(fmean, groups))]) if prior else Spread(0.0, self._seen)

    def marks(self) -> dict[int, tuple[float, float]]:
        """By steps done at a mark: DeltaNet's mean held-out loss there (nats per token), and the sd of a run.
        Marks where runs do not differ are left out."""
        curves = [
            [{h.step: h.loss for h in run.evidence.held_out} for run in runs] for runs in self.runs.values()
        ]
        common = set.intersection(*({*curve} for group in curves for curve in group))
        found = {}
        for step, loss in self.curve(SEED_ARCHITECTURE).items():
            if step in common:
                spread = self._of_any([[curve[step] for curve in group] for group in curves])
                if spread.sd:
                    found[step] = (loss, spread.sd)
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
        """The sd of one run of each task's relative gain."""
        found = {}
        for task in self.reference.tasks:
            groups = [
                [
                    fitness.task_gain(t, self.reference)
                    for e in self.evaluations(name)
                    for t in e.tasks
                    if t.task == task
                ]
                for name in self.names
            ]
            found[task] = self._of_any(groups).sd
        return found

    def separated(self) -> bool:
        """Whether the ends of the judge's scale differ in loss beyond noise (two-sided t-test at 5 %)."""
        low, high = (self._losses[name] for name in (SEED_ARCHITECTURE, self.top))
        prior = self._loss_prior
        spread = prior.of_difference(low, high) if prior else Spread(0.0, self._seen)
        return abs(fmean(low) - fmean(high)) > spread.margin(0.025)


def _mean(runs: Sequence[TaskResult]) -> TaskResult:
    """One task over several runs."""
    names = set.intersection(*({*run.metrics} for run in runs))
    metrics = {name: fmean(run.metrics[name] for run in runs) for name in sorted(names)}
    score, curve = fmean(run.score for run in runs), fitness.mean_curve(runs)
    return msgspec.structs.replace(runs[0], score=score, metrics=metrics, curve=curve)


def performance_points(loss: float, lower: Anchor, upper: Anchor) -> float:
    """Points of the judge for a loss: 0 at the lower end's, 5 at the upper end's, on a line through both that
    has no end.

    0 where the upper one is not the better one: there is no scale then.
    """
    return 5.0 * (lower.loss - loss) / (lower.loss - upper.loss) if upper.loss < lower.loss else 0.0


def telling(noise: Noise, against_mean: bool) -> float:
    """From how many standard deviations on a difference counts, at 5 %: against the mean of a reference to
    one side, between two single runs to both."""
    return t_quantile(0.95 if against_mean else 0.975, noise.freedom)
