"""What was measured, as text for language models: one table for every role, with the noise beside it.

|                          | the candidate | DeltaNet | Gated DeltaNet | sd of one run |
| held-out loss, 32 steps  | 6.1012        | 6.1420   | 6.0871         | 0.0101        |
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from asi_lab.baselines import SEED_ARCHITECTURE, UPPER_REFERENCE, Baselines, t_quantile, winning_margin
from asi_lab.records import Candidate, Evidence, TaskResult

TITLES = {SEED_ARCHITECTURE: "DeltaNet", UPPER_REFERENCE: "Gated DeltaNet"}
CANDIDATE = "the candidate"
ABSENT = "-"


class Column(msgspec.Struct, frozen=True):
    """One architecture as it was measured. `curve` is the held-out loss (nats per token) by step."""

    title: str
    loss: float
    curve: dict[int, float]
    tasks: dict[str, TaskResult]
    params: int
    tokens_per_second: float


def measured(title: str, evidence: Evidence) -> Column:
    """The column of an evaluated architecture."""
    assert evidence.evaluation is not None
    assert evidence.training is not None
    return Column(
        title,
        evidence.evaluation.loss,
        {held_out.step: held_out.loss for held_out in evidence.held_out},
        {task.task: task for task in evidence.evaluation.tasks},
        evidence.training.params,
        evidence.training.tokens_per_second,
    )


def baseline(known: Baselines, architecture: str) -> Column:
    """The column of a baseline: means over its runs of record."""
    anchor = known.anchor(architecture)
    return Column(
        TITLES[architecture],
        anchor.loss,
        known.curve(architecture),
        known.tasks(architecture),
        anchor.params,
        anchor.tokens_per_second,
    )


def both(known: Baselines) -> list[Column]:
    """The columns of DeltaNet and Gated DeltaNet."""
    return [baseline(known, name) for name in TITLES]


def table(columns: Sequence[Column], known: Baselines, *, timing: bool = True) -> str:
    """A markdown table, one column for each architecture; what was not measured is a dash. `timing` says
    whether speed is shown: it differs from run to run."""
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
        label = f"{name}: {task.score_name}, {better} is better, chance {task.chance:.3g}"
        spread = of_tasks.get(name, 0.0) * known.reference.tasks.get(name, 0.0)
        rows.append((label, [_number(one.score if one else None) for one in found], _number(spread)))
    rows.append(("parameters", [f"{column.params:,}" for column in columns], ABSENT))
    if timing:
        speeds = [f"{column.tokens_per_second:,.0f}" for column in columns]
        rows.append(("tokens/s in training", speeds, ABSENT))
    head = ["", *(column.title for column in columns), "sd of one run"]
    lines = [_row(head), _row(["---"] * len(head))]
    return "\n".join([*lines, *(_row([label, *cells, spread]) for label, cells, spread in rows)])


def noise(known: Baselines) -> str:
    """What is a difference, in words. DeltaNet's own figures are means, those of a candidate one run."""
    found = known.noise()
    between = t_quantile(0.975, found.freedom) * found.loss * 2**0.5
    return (
        f"Losses are nats per token, lower is better. Figures of DeltaNet and Gated DeltaNet are means over "
        f"{found.runs} runs, all others are one run. A candidate beats DeltaNet beyond noise if its loss is "
        f"at least {winning_margin(found):.4f} lower. Two candidates differ beyond noise from "
        f"{between:.4f} on. Smaller differences are luck."
    )


def verdict(loss: float, known: Baselines) -> str:
    """How a single run's loss stands to DeltaNet's mean, in words."""
    gain, margin = known.mean.loss - loss, winning_margin(known.noise())
    if gain >= margin:
        return "better than DeltaNet beyond noise"
    return (
        "worse than DeltaNet beyond noise" if gain <= -margin else "no difference from DeltaNet beyond noise"
    )


def outcome(candidate: Candidate, known: Baselines) -> str:
    """What came of a candidate, in a line."""
    if candidate.loss is None or candidate.score is None:
        return f"{candidate.state.value}: not measured"
    return (
        f"loss {candidate.loss:.4f}, {verdict(candidate.loss, known)}; fitness {candidate.score.fitness:.4f}"
    )


def _number(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.4f}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
