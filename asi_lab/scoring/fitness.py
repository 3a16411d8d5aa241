"""Fitness (paper, sections 2.1 and 3.1). Pure functions.

    gain g  = clamp((baseline - value) / (scale * baseline), -1, 1)     sign turned where higher is better
    part    = sigmoid(6 g)
    fitness = (part(loss) + part(mean over tasks of g) + judge) / 3,    judge = (mark - 1) / 9

`scale` is 10 % in the paper. A loss too far under the baseline (10 % there) counts as a leak. A probe's scale
is `PROBE_SCALE` times as wide.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

import msgspec

from asi_lab.data.probes import title_of
from asi_lab.records import Against, Evaluation, Judgement, Noise, Score, TaskResult

STEEPNESS = 6.0

PROBE_SCALE = 10.0
"""A probe's relative gain counts a tenth of a text task's: architectures differ by 30 to 40 % in probes and
by 2 to 3 % in texts, and the runs of one likewise, so that each then has about the same say."""


class Reference(msgspec.Struct, frozen=True):
    """What gains are measured against: mean held-out loss (nats per token) and mean score of each task.

    `scale` is the relative gain that counts as one.
    """

    loss: float
    tasks: Mapping[str, float]
    scale: float


def reference_of(evaluations: Sequence[Evaluation], scale: float) -> Reference:
    """Mean over the seeds of one architecture."""
    names = [task.task for task in evaluations[0].tasks]
    scores = {name: fmean(_by_name(e)[name].score for e in evaluations) for name in names}
    return Reference(fmean(e.loss for e in evaluations), scores, scale)


def mean_curve(results: Sequence[TaskResult]) -> tuple[tuple[int, float], ...]:
    """The mean curve of a probe over several runs; empty for a task that has none."""
    marks = zip(*(result.curve for result in results), strict=True)
    return tuple((points[0][0], fmean(value for _, value in points)) for points in marks)


def _by_name(evaluation: Evaluation) -> dict[str, TaskResult]:
    return {task.task: task for task in evaluation.tasks}


def relative_gain(value: float, baseline: float, higher_is_better: bool = False) -> float:
    """Improvement over the baseline as a share of it; positive is better.

    Raises:
        ValueError: a figure is not finite or the baseline is not positive: such a thing never scores.
    """
    if not (math.isfinite(value) and math.isfinite(baseline)) or baseline <= 0:
        raise ValueError(f"no gain of {value} over {baseline}")
    return ((value - baseline) if higher_is_better else (baseline - value)) / baseline


def clamped(gain: float, scale: float) -> float:
    """A relative gain in units of the scale, clamped to [-1, 1]."""
    return max(-1.0, min(1.0, gain / scale))


def sigmoid_part(g: float) -> float:
    """sigmoid(6 g) for g in [-1, 1]."""
    return 1.0 / (1.0 + math.exp(-STEEPNESS * g))


def task_gain(task: TaskResult, reference: Reference) -> float:
    """Relative gain of one task over the baseline of record."""
    return relative_gain(task.score, reference.tasks[task.task], task.higher_is_better)


def loss_gain(evaluation: Evaluation, reference: Reference) -> float:
    """Relative gain of the held-out loss."""
    return relative_gain(evaluation.loss, reference.loss)


def benchmark_gain(evaluation: Evaluation, reference: Reference) -> float:
    """Mean over tasks of the relative gain, that of a probe over `PROBE_SCALE`, each clamped to the scale
    either way."""
    scale = reference.scale
    return fmean(clamped(weighed_gain(task, reference), scale) for task in evaluation.tasks) * scale


def weighed_gain(task: TaskResult, reference: Reference) -> float:
    """The relative gain of one task as it counts in the benchmark part."""
    gain = task_gain(task, reference)
    return gain / PROBE_SCALE if title_of(task.task) else gain


def parts(evaluation: Evaluation, reference: Reference) -> tuple[float, float]:
    """The two measured parts of the fitness, (loss, benchmark), each in (0, 1)."""
    gains = loss_gain(evaluation, reference), benchmark_gain(evaluation, reference)
    loss, benchmark = (sigmoid_part(clamped(gain, reference.scale)) for gain in gains)
    return loss, benchmark


def judged(points: float) -> float:
    """The judge's part for a mark that many `points` above the lowest, which is 1."""
    return points / 9


def composite(measured: Sequence[float], judge: float) -> float:
    """The fitness, from the `measured` parts of loss and benchmark and the judge's (paper, section 2.1)."""
    return (sum(measured) + judge) / 3


def spread(measured: tuple[float, float], reference: Reference, noise: Noise) -> float:
    """The sd of one run's fitness where the `measured` parts are these.

    The sigmoids are steep in the middle and flat at their ends, so the same noise of loss and tasks moves the
    fitness of good candidates far less than that of DeltaNet. A run that is lucky is so in all parts at once:
    their sds add up. The mark's counts as if it had no upper end.
    """
    sds = noise.loss / reference.loss, noise.benchmark
    moved = [STEEPNESS * p * (1 - p) * sd / reference.scale for p, sd in zip(measured, sds, strict=True)]
    return composite(moved, judged(noise.judge))


def is_implausible(evaluation: Evaluation, reference: Reference, leak: float) -> bool:
    """True for a loss more than `leak` under the baseline, which the paper discards as a leak."""
    return loss_gain(evaluation, reference) > leak


def score(
    evaluation: Evaluation,
    reference: Reference,
    judgement: Judgement,
    noise: Noise,
    against: tuple[Against, ...] = (),
) -> Score:
    """The composite fitness of an evaluated candidate; `against` is how its loss stands to the references."""
    loss_part, benchmark_part = parts(evaluation, reference)
    judge_part = judged(judgement.mark - 1)
    return Score(
        fitness=composite((loss_part, benchmark_part), judge_part),
        loss_part=loss_part,
        benchmark_part=benchmark_part,
        judge_part=judge_part,
        loss_gain=loss_gain(evaluation, reference),
        benchmark_gain=benchmark_gain(evaluation, reference),
        judgement=judgement,
        noise=noise,
        against=against,
        spread=spread((loss_part, benchmark_part), reference, noise),
    )
