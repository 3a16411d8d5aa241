"""The ablation table: a result explained against parent, siblings and baseline, as measured.

Every difference is given in units of the noise floor, so that luck does not read as progress.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from asi_lab.data.probes import title_of
from asi_lab.records import SEED_ID, Analysis, Candidate, Difference, Noise
from asi_lab.scoring import fitness
from asi_lab.scoring.baselines import (
    ARCHITECTURES,
    MARKS,
    SEED_ARCHITECTURE,
    UPPER_REFERENCE,
    Baselines,
    telling,
    winning_margin,
)
from asi_lab.scoring.results import behind, in_noise, weakness

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
    seed, upper = (_against_baseline(candidate, name, baselines, noise) for name in ARCHITECTURES)
    table = (seed, upper, *rows)
    weak, strong = _tasks(candidate, baselines)
    summary = _summary(candidate, seed, noise)
    text = _text(candidate, table, weak, strong, summary, noise)
    return Analysis(text=text, summary=summary, ablation=table, weaknesses=tuple(weak), analyst=NAME)


def _row(
    against: str, relation: str, loss: float, benchmark: float, fit: float, noise: Noise, runs: float
) -> Difference:
    """`runs` is how many single-run spreads the difference carries: sqrt(2) between two single runs."""
    return Difference(
        against=against,
        relation=relation,
        loss=loss,
        benchmark=benchmark,
        fitness=fit,
        loss_in_noise=in_noise(loss, noise.loss * runs),
        benchmark_in_noise=in_noise(benchmark, noise.benchmark * runs),
        fitness_in_noise=in_noise(fit, noise.fitness * runs),
    )


def _difference(
    candidate: Candidate, other: Candidate, relation: str, baselines: Baselines, noise: Noise
) -> Difference:
    mine, theirs = candidate.measured, other.measured
    reference = baselines.reference
    return _row(
        f"{other.id:04d} {other.name}",
        relation,
        mine.loss - theirs.loss,
        fitness.benchmark_gain(mine, reference) - fitness.benchmark_gain(theirs, reference),
        candidate.scored.fitness - other.scored.fitness,
        noise,
        2**0.5,
    )


def _against_baseline(
    candidate: Candidate, architecture: str, baselines: Baselines, noise: Noise
) -> Difference:
    mine, evaluations = candidate.measured, baselines.evaluations(architecture)
    mean, reference = fmean(e.loss for e in evaluations), baselines.mean
    mark = MARKS[architecture] if baselines.separated() else MARKS[SEED_ARCHITECTURE]
    judge = fitness.judged(mark - 1)
    theirs = fmean(fitness.composite(fitness.parts(e, reference), judge) for e in evaluations)
    return _row(
        f"{architecture} (mean of {len(evaluations)})",
        "baseline",
        mine.loss - mean,
        fitness.benchmark_gain(mine, reference)
        - fmean(fitness.benchmark_gain(e, reference) for e in evaluations),
        candidate.scored.fitness - theirs,
        noise,
        (1 + 1 / len(evaluations)) ** 0.5,
    )


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


def _summary(candidate: Candidate, seed: Difference, noise: Noise) -> str:
    margin = winning_margin(noise)
    if -seed.loss > margin:
        verdict = "beats the baseline beyond noise"
    elif seed.loss > margin:
        verdict = "is worse than the baseline beyond noise"
    else:
        verdict = "is not told apart from the baseline by one run"
    return (
        f"{candidate.name} {verdict}: loss {seed.loss:+.4f} nats ({seed.loss_in_noise:+.1f} noise floors; "
        f"one run needs {-margin:+.4f} to win at 5 %)."
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
        f"difference (sd of the loss {noise.loss:.4f} nats, {noise.freedom} degrees of freedom). A star",
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
