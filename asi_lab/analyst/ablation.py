"""The ablation table: a result explained against parent, siblings and baseline, as measured.

Every difference is given in units of the noise floor, so that luck does not read as progress.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

from asi_lab.data.probes import title_of
from asi_lab.records import SEED_ID, Analysis, Candidate, Difference, Noise
from asi_lab.scoring import fitness
from asi_lab.scoring.baselines import (
    ARCHITECTURES,
    SEED_ARCHITECTURE,
    UPPER_REFERENCE,
    Baselines,
    telling,
)
from asi_lab.scoring.results import behind, in_noise, verdict, weakness

NAME = "ablation table"


def explain(
    candidate: Candidate,
    parent: Candidate,
    siblings: Sequence[Candidate],
    baselines: Baselines,
    near: Sequence[Candidate] = (),
) -> Analysis:
    """Explain a scored candidate. `siblings` are finished candidates with the same parent, `near` those whose
    ideas are most like its own."""
    noise = baselines.noise()
    others = [(parent, "parent")] if parent.id != SEED_ID else []
    others += [(sibling, "sibling") for sibling in siblings]
    others += [(other, "alike") for other in near if other.id not in {known.id for known, _ in others}]
    rows = [_difference(candidate, other, relation, baselines, noise) for other, relation in others]
    names = dict.fromkeys((*ARCHITECTURES, baselines.bar))
    table = (*(_against_reference(candidate, name, baselines) for name in names), *rows)
    weak, strong = _tasks(candidate, baselines)
    summary = _summary(candidate, baselines)
    text = _text(candidate, table, weak, strong, summary, noise)
    return Analysis(text=text, summary=summary, ablation=table, weaknesses=tuple(weak), analyst=NAME)


class _Figures(NamedTuple):
    """Of a candidate or of a difference: loss (nats per token), benchmark gain, fitness."""

    loss: float
    benchmark: float
    fitness: float


def _difference(
    candidate: Candidate, other: Candidate, relation: str, baselines: Baselines, noise: Noise
) -> Difference:
    pairs = zip(_figures(candidate, baselines), _figures(other, baselines), strict=True)
    two = 2**0.5  # single runs
    sds = _Figures(two * noise.loss, two * noise.benchmark, two * noise.fitness)
    return _row(f"{other.id:04d} {other.name}", relation, _Figures(*(a - b for a, b in pairs)), sds)


def _against_reference(candidate: Candidate, architecture: str, baselines: Baselines) -> Difference:
    mine, evaluations = _figures(candidate, baselines), baselines.evaluations(architecture)
    known = baselines.against([mine.loss], architecture)
    benchmark = fmean(fitness.benchmark_gain(e, baselines.reference) for e in evaluations)
    found = _Figures(
        known.difference, mine.benchmark - benchmark, mine.fitness - baselines.fitness(architecture)
    )
    sds = _Figures(
        known.sd,
        baselines.spread("benchmark", [mine.benchmark], architecture).sd,
        baselines.spread("fitness", [mine.fitness], architecture).sd,
    )
    return _row(f"{architecture} (mean of {known.runs})", "baseline", found, sds)


def _figures(candidate: Candidate, baselines: Baselines) -> _Figures:
    found = candidate.measured
    gain = fitness.benchmark_gain(found, baselines.reference)
    return _Figures(found.loss, gain, candidate.scored.fitness)


def _row(against: str, relation: str, found: _Figures, sds: _Figures) -> Difference:
    return Difference(against, relation, *found, *map(in_noise, found, sds))


def _tasks(candidate: Candidate, baselines: Baselines) -> tuple[list[str], list[str]]:
    """Tasks on which the candidate is worse and better than the baseline beyond noise, and probes in which it
    stays behind Gated DeltaNet."""
    spread, beyond = baselines.task_noise(), telling(baselines.noise(), against_mean=False)
    probes = [task for task in candidate.measured.tasks if title_of(task.task) is not None]
    weak, strong = behind(probes, baselines, UPPER_REFERENCE), []
    means = baselines.tasks(SEED_ARCHITECTURE, whole=True)
    for task in candidate.measured.tasks:
        gain = fitness.task_gain(task, baselines.mean)
        units = in_noise(gain, spread[task.task])
        line = weakness(task, means[task.task], gain, "the baseline", units)
        if units <= -beyond:
            weak.append(line)
        elif units >= beyond:
            strong.append(line)
    return weak, strong


def _summary(candidate: Candidate, baselines: Baselines) -> str:
    loss = candidate.measured.loss
    bar = baselines.against([loss], baselines.bar)
    units = in_noise(bar.difference, bar.sd)
    return (
        f"{candidate.name} is {verdict(loss, baselines)}: loss {bar.difference:+.4f} nats against the bar "
        f"({units:+.1f} noise floors; one run needs {-bar.margin:+.4f} to beat it at 5 %)."
    )


def _text(
    candidate: Candidate,
    table: Sequence[Difference],
    weak: list[str],
    strong: list[str],
    summary: str,
    noise: Noise,
) -> str:
    lines = [
        f"# Analysis of candidate {candidate.id}",
        "",
        summary,
        "",
        "## What changed",
        "",
        f"Against its parent: {candidate.proposed.change}.",
        "",
        "## Ablation",
        "",
        "Differences are this candidate minus the other; in brackets in units of the noise floor of a",
        f"difference (sd of the loss {noise.loss:.4f} nats, {noise.freedom:.3g} degrees of freedom). A star",
        "marks what is beyond noise at 5 %.",
        "",
        rows(table, noise),
    ]
    lines += ["", "## Strengths", "", *_bullets(strong, "No task is better than the baseline beyond noise.")]
    lines += ["", "## Weaknesses", "", *_bullets(weak, "No task is worse than the baseline beyond noise.")]
    judgement = candidate.scored.judgement
    lines += ["", "## Judge", "", f"{judgement.mark:.1f} of 10 ({judgement.judge}).", ""]
    lines += [f"- {part.name} {part.points:+.2f}: {part.reason}" for part in judgement.parts]
    return "\n".join(lines) + "\n"


def rows(table: Sequence[Difference], noise: Noise) -> str:
    """The ablation as a markdown table; a star marks what is beyond noise."""
    lines = ["| against | relation | loss | benchmark | fitness |", "|---|---|---:|---:|---:|"]
    for row in table:
        least = telling(noise, against_mean=row.relation == "baseline")

        def units(value: float, least: float = least) -> str:
            return f"({value:+.1f}){'*' if abs(value) >= least else ''}"

        lines.append(
            f"| {row.against} | {row.relation} | {row.loss:+.4f} {units(row.loss_in_noise)} "
            f"| {row.benchmark:+.2%} {units(row.benchmark_in_noise)} "
            f"| {row.fitness:+.4f} {units(row.fitness_in_noise)} |"
        )
    return "\n".join(lines)


def _bullets(items: list[str], otherwise: str) -> list[str]:
    return [f"- {item}" for item in items] or [otherwise]
