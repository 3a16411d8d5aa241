"""What was measured, as text for language models: one table for every role, with the noise beside it.

|                          | the candidate | DeltaNet | Gated DeltaNet | sd of one run |
| held-out loss, 32 steps  | 6.1012        | 6.1420   | 6.0871         | 0.0101        |
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

import msgspec

from asi_lab.common.text import CUT
from asi_lab.data.probes import title_of
from asi_lab.records import Candidate, Evidence, TaskResult, Work
from asi_lab.scoring import fitness
from asi_lab.scoring.baselines import (
    ARCHITECTURES,
    SEED_ARCHITECTURE,
    TITLES,
    UPPER_REFERENCE,
    Baselines,
    telling,
)
from asi_lab.scoring.work import believed

NOTHING = "none yet"

SECTIONS = {
    "design_evaluation": "Design",
    "experimental_results_with_ablation": "Results and ablation",
    "expectation_vs_reality": "Expectation and reality",
    "theoretical_explanation_with_evidence": "Explanation",
    "synthesis_and_insights": "Insights",
}
"""The sections of an analysis, by the analyst's names of them (paper, appendix D), with their titles."""

CANDIDATE = "the candidate"
ABSENT = "-"


class Column(msgspec.Struct, frozen=True):
    """One architecture as it was measured. `curve` is the held-out loss (nats per token) by step; `work` is
    None where it was not counted, or is not believed."""

    title: str
    loss: float
    curve: dict[int, float]
    tasks: dict[str, TaskResult]
    params: int
    work: Work | None


def measured(title: str, evidence: Evidence, known: Baselines) -> Column:
    """The column of an evaluated architecture."""
    return Column(
        title,
        evidence.measured.loss,
        {held_out.step: held_out.loss for held_out in evidence.held_out},
        {task.task: task for task in evidence.measured.tasks},
        evidence.trained.params,
        believed(evidence, known.anchor(SEED_ARCHITECTURE)),
    )


def baseline(known: Baselines, architecture: str) -> Column:
    """The column of a baseline: means over all its runs, as verdicts are."""
    anchor = known.anchor(architecture, whole=True)
    return Column(
        TITLES[architecture],
        anchor.loss,
        known.curve(architecture, whole=True),
        known.tasks(architecture, whole=True),
        anchor.params,
        anchor.work,
    )


def references(known: Baselines) -> list[Column]:
    """The columns of DeltaNet, Gated DeltaNet and the bar."""
    return [baseline(known, name) for name in dict.fromkeys((*ARCHITECTURES, known.bar))]


def table(columns: Sequence[Column], known: Baselines) -> str:
    """A markdown table, one column for each architecture; what was not measured is a dash. Nothing in it was
    timed, so it is the same in every run."""
    noise, at_marks, of_tasks = known.noise(), known.marks(), known.task_noise()
    rows: list[tuple[str, list[str], str]] = []
    for step in sorted({step for column in columns for step in column.curve}):
        losses = [_number(column.curve.get(step)) for column in columns]
        rows.append(
            (f"held-out loss, {step} steps", losses, _number(at_marks[step][1] if step in at_marks else None))
        )
    rows.append(("held-out loss, end", [_number(column.loss) for column in columns], _number(noise.loss)))
    for name, task in columns[0].tasks.items():
        found = [column.tasks.get(name) for column in columns]
        better = "higher" if task.higher_is_better else "lower"
        label = f"{_named(name)}: {task.score_name}, {better} is better, chance {task.chance:.3g}"
        spread = of_tasks.get(name, 0.0) * known.reference.tasks.get(name, 0.0)
        rows.append((label, [_number(one.score if one else None) for one in found], _number(spread)))
    rows.append(("parameters", [f"{column.params:,}" for column in columns], ABSENT))
    works = [column.work for column in columns]
    if any(works):
        operations = [work.operations if work else None for work in works]
        moved = [work.bytes if work else None for work in works]
        rows.append(("operations a token", list(map(thousands, operations)), ABSENT))
        rows.append(("bytes moved a token", list(map(thousands, moved)), ABSENT))
    head = ["", *(column.title for column in columns), "sd of one run"]
    lines = [_row(head), _row(["---"] * len(head))]
    return "\n".join([*lines, *(_row([label, *cells, spread]) for label, cells, spread in rows)])


def noise(known: Baselines) -> str:
    """What is a difference, in words. Figures of references are means, those of a candidate one run."""
    found = known.noise()
    between = telling(found, against_mean=False) * found.loss * 2**0.5
    names = sorted(known.names, key=lambda name: name != known.bar)
    margins = [f"{TITLES[name]} {known.margin(name):.4f}" for name in names]
    return (
        f"Losses are nats per token, lower is better. Figures of references are means over {found.runs} runs "
        f"or more, all others are one run. The bar, which a candidate has to beat to be called better, is "
        f"{TITLES[known.bar]}. A reference is beaten beyond noise by a loss that lies this much under its "
        f"mean: {', '.join(margins)}. Two candidates differ beyond noise from {between:.4f} on. Smaller "
        "differences are luck."
    )


def verdict(loss: float, known: Baselines) -> str:
    """How a single run's loss stands to the references, in words."""
    bar, *others = known.against_all([loss])
    title = f"{TITLES[bar.reference]}, the bar,"
    if bar.is_better:
        return f"better than {title} beyond noise"
    found = "worse than" if bar.difference >= bar.margin else "not told apart from"
    beaten = [TITLES[one.reference] for one in others if one.is_better]
    return f"{found} {title} and better than {' and '.join(beaten) or 'no reference'} beyond noise"


def outcome(candidate: Candidate, known: Baselines) -> str:
    """What came of a candidate, in a line."""
    if candidate.loss is None or candidate.score is None:
        return f"{candidate.state.value}, no result" if candidate.state.is_terminal else "being tried now"
    own = measured(candidate.name, candidate.found, known)
    work = f", {thousands(own.work.operations)} operations a token" if own.work else ""
    return f"loss {candidate.loss:.4f}, {verdict(candidate.loss, known)}; {own.params:,} parameters{work}"


def lesson(candidate: Candidate, *fields: str) -> str:
    """Sections of an analysis, those of `SECTIONS` that are named; empty where no model wrote one."""
    if candidate.analysis is None:
        return ""
    found = (_section(candidate.analysis.text, SECTIONS[field]) for field in fields)
    return "\n\n".join(words for words in found if words)


def _section(text: str, title: str) -> str:
    found = re.search(rf"^## {re.escape(title)}\n\n(.*?)\n\n(?:## |---$)", text, re.MULTILINE | re.DOTALL)
    return found.group(1) if found else ""


def change(before: Candidate, after: Candidate, context: int = 2, most: int | None = None) -> str:
    """The difference of two candidates' code, as a unified diff of at most `most` lines."""
    old, new = before.code.splitlines(), after.code.splitlines()
    lines = list(difflib.unified_diff(old, new, before.name, after.name, n=context, lineterm=""))
    return "\n".join(lines if most is None or len(lines) <= most else [*lines[:most], CUT])


def _named(task: str) -> str:
    """A task by its name, a probe also by what it asks for."""
    title = title_of(task)
    return task if title is None else f"{title} ({task})"


def weakness(task: TaskResult, theirs: TaskResult, gain: float, whose: str, units: float) -> str:
    """How far a task stays behind somebody's mean, in words: a probe by its share of their probability, any
    other task by its relative `gain`. `units` are noise floors."""
    if title_of(task.task) is not None:
        return (
            f"{_named(task.task)} at {task.score / theirs.score:.2f} of {whose}'s ({units:+.1f} noise floors)"
        )
    return f"{task.task}: {gain:+.1%} against {whose} ({units:+.1f} noise floors)"


def _number(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.4f}"


def thousands(count: float | None) -> str:
    """A count of operations or bytes in thousands."""
    return ABSENT if count is None else f"{count / 1e3:,.0f}k"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def in_noise(value: float, sd: float) -> float:
    """A difference in units of its sd; 0 where there is no noise."""
    return value / sd if sd > 0 else 0.0


def shortfalls(candidate: Candidate, baselines: Baselines) -> list[str]:
    """Where a candidate stays behind Gated DeltaNet beyond noise: what the seed, and those whose analysis
    names no weakness, may still lack."""
    mine, title = candidate.measured, TITLES[UPPER_REFERENCE]
    upper, found = baselines.against([mine.loss], UPPER_REFERENCE), []
    if upper.difference >= upper.margin:
        units = f"{in_noise(upper.difference, upper.sd):+.1f} noise floors"
        found.append(f"held-out loss {upper.difference:+.4f} nats against {title} ({units})")
    return found + behind(mine.tasks, baselines, UPPER_REFERENCE)


def behind(tasks: Sequence[TaskResult], baselines: Baselines, architecture: str) -> list[str]:
    """The tasks of a candidate that stay behind the mean of a reference beyond noise, in words."""
    beyond, runs = telling(baselines.noise(), against_mean=True), len(baselines.evaluations(architecture))
    theirs, spread = baselines.tasks(architecture, whole=True), baselines.task_noise()
    found = []
    for task in tasks:
        if task.task in theirs:
            gain = fitness.task_gain(task, baselines.mean) - fitness.task_gain(
                theirs[task.task], baselines.mean
            )
            units = in_noise(gain, spread[task.task] * (1 + 1 / runs) ** 0.5)
            if units <= -beyond:
                found.append(weakness(task, theirs[task.task], gain, TITLES[architecture], units))
    return found
