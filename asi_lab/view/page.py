"""Everything the store knows about one candidate, for reading."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from statistics import fmean

import msgspec
from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from asi_lab.common.text import plain
from asi_lab.data.probes import title_of
from asi_lab.lab import Store, repeats, steering
from asi_lab.lab.repeats import Repeat
from asi_lab.lab.spending import Spent
from asi_lab.lab.steering import Comment, Note
from asi_lab.records import Arm, Candidate, Check, Evaluation, Evidence, Score, TaskResult, Training, Work
from asi_lab.researcher import stagnation
from asi_lab.scoring import verification
from asi_lab.scoring.baselines import SEED_ARCHITECTURE, TITLES, Baselines
from asi_lab.scoring.beside import Beside, of_tasks
from asi_lab.scoring.lineage_prior import Belief
from asi_lab.scoring.results import thousands
from asi_lab.settings import Settings
from asi_lab.view import arms, leaderboard, verdicts
from asi_lab.view.leaderboard import Board
from asi_lab.view.tables import LINE, NAME, costs, duration, grid, result_lines, standing_words, to_json

BARS = "▁▂▃▄▅▆▇█"
"""Signs for probabilities from 0 to 1."""

TASK = 24
"""Names of tasks are not broken where all have so many characters at most."""

LONGEST = 20_000
"""Characters of a text that a page shows."""


class Dossier(msgspec.Struct, frozen=True):
    """What a page is made of: a candidate, its parent's record, the lab's baselines as far as they are
    measured, what was spent on it, what people noted on it, its further runs, what the pool ranks it by, and
    what is claimed of the lab's candidates by scale, with what its fresh runs at the lab's own gave `beside`
    the bar's."""

    candidate: Candidate
    parent: Candidate | None = None
    baselines: Baselines | None = None
    spent: Spent = Spent()
    note: Note = Note()
    runs: Sequence[Repeat] = ()
    pool: Belief | None = None
    verified: verdicts.Everywhere = msgspec.field(default_factory=dict)
    beside: Sequence[Beside] = ()


def dossier(found: Candidate, store: Store, settings: Settings, board: Board | None) -> Dossier:
    """Gather what the store and the leaderboard have on a candidate."""
    rows = board.candidates if board else ()
    verified = verdicts.everywhere(settings, store)
    own = verified.get(settings.preset)
    claim = own.of(found.id) if own else None
    beside = of_tasks(store, own, claim) if own and claim else ()
    return Dossier(
        found,
        store.get(found.parent) if found.parent is not None else None,
        Baselines.measured(settings, store.baselines()),
        store.ledger.spent_on(found.id),
        steering.note(store, found.id),
        repeats.of(store, found.id),
        next((row.pool for row in rows if row.id == found.id), None),
        verified,
        beside,
    )


def page(known: Dossier, lineage: str) -> RenderableType:
    """Everything about a candidate but its code; `lineage` is the path of the git repository."""
    found = known.candidate
    parts: list[RenderableType] = [
        Text(f"{found.id:04d} {plain(found.name, limit=200)}", style="bold"),
        _facts(known, lineage),
    ]
    if known.note.comments:
        parts += _section("Comments", *map(_comment, known.note.comments))
    if found.proposal is not None:
        parts += _section("Motivation", Text(_text(found.proposal.motivation, multiline=True)))
    if known.beside:
        bar = TITLES[next(iter(known.verified.values())).terms.bar]
        title = f"Fresh runs beside those of {bar}, the bar: each figure alone, none of them claimed"
        parts += _section(title, _fresh(known.beside))
    if found.evidence is not None:
        parts += _evidence(found.evidence, found.score, known)
    if found.analysis is not None:
        parts += _analysis(found)
    return Group(*parts)


def code(source: str, console: Console) -> RenderableType:
    """Source code, in colours on a terminal."""
    text = plain(source, multiline=True)
    if not console.is_terminal or console.no_color:
        return Text(f"\n{text}")
    return Syntax(text, "python", background_color="default", theme="ansi_dark")


def as_json(found: Candidate, with_code: bool) -> str:
    """The record as JSON, its source code only where asked for."""
    record = msgspec.to_builtins(found)
    if record["proposal"] is not None and not with_code:
        del record["proposal"]["code"]
    return to_json(record)


def _text(value: str, multiline: bool = False) -> str:
    """Text of a candidate or a model, cut where no page could hold it; the JSON has all of it."""
    return plain(value, multiline=multiline, limit=LONGEST)


def _section(title: str, *body: RenderableType) -> list[RenderableType]:
    return [Text(), Text(title, style="bold"), *(Padding(part, (0, 0, 0, 2)) for part in body)]


def _comment(comment: Comment) -> Text:
    clock = time.strftime("%Y-%m-%d %H:%M", time.localtime(comment.time))
    return Text(f"{clock}  ", style="dim").append(_text(comment.text, multiline=True), style="default")


def _facts(known: Dossier, lineage: str) -> Table:
    found, baselines, spent = known.candidate, known.baselines, known.spent
    facts = grid(10, None)

    def add(heading: str, text: str) -> None:
        facts.add_row(Text(heading, style="dim"), Text(text))

    updated = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(found.updated))
    cut_off = f"; its trial was cut off {found.cuts} times" if found.cuts else ""
    add("state", f"{found.state.value} ({updated}{cut_off})")
    add("since", time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(found.created)))
    if known.note.tags:
        add("tags", " ".join(known.note.tags))
    if (draw := found.draw) is not None:
        references = ", ".join(f"{reference:04d}" for reference in draw.references) or "none"
        wanted = (
            f" ({draw.references_wanted} wanted)" if len(draw.references) < draw.references_wanted else ""
        )
        rank = f"rank {draw.parent_rank} of" if draw.parent_rank else "not drawn by rank, beside"
        place = f", {rank} pool generation {draw.generation}"
        if draw.arm not in (None, Arm.EVOLUTION):
            add("arm", f"{draw.arm.value}: {arms.ABOUT[draw.arm]}")
        add("parent", f"{draw.parent:04d}{'' if draw.arm and draw.arm.is_apart else place}")
        if draw.step:
            add("standstill", f"step {draw.step}: {stagnation.WORDS[draw.step]}")
        add("references", f"{references}{wanted}")
    if (proposal := found.proposal) is not None:
        model = f" with {_text(proposal.model)}" if proposal.model else ""
        near = ", ".join(f"{n.id:04d} ({n.similarity:.2f})" for n in proposal.nearest) or "none"
        add("change", _text(proposal.change))
        add("written by", f"{_text(proposal.researcher)}{model}")
        for done in found.repairs:
            add("repaired", f"by {_text(done.role)} after {done.failure.value}: {_text(done.changes)}")
        for known_as in proposal.cognitions:
            words = f"{_text(known_as.key)}: {_text(known_as.insight)} (score {known_as.score:.2f})"
            add("cognition", f"{words}\nfor: {_text(known_as.weakness)}")
        add("nearest", f"{near}; {proposal.rejected} near-duplicates rejected before")
    if found.score is not None and baselines is not None:
        first, second = result_lines(found, baselines)
        add("result", f"{first}\n{second}")
    if found.score is not None and known.pool is not None:
        fitness, worth = found.score.fitness, known.pool
        add("pool", f"value {worth.mean:.4f} ±{worth.sd:.4f} given its relatives (one run {fitness:.4f})")
    claimed = ((scale, one, one.of(found.id)) for scale, one in known.verified.items())
    told = [(scale, verification.words(claim, one)) for scale, one, claim in claimed if claim]
    for scale, words in told:
        add("verdict", f"at {scale}: {words}" if len(told) > 1 else words)
    if known.runs:
        add("run again", _again(known))
    if spent.calls or spent.trial_seconds:
        gpu = f", {duration(spent.gpu_seconds)} of it on a GPU" if spent.gpu_seconds else ""
        add("spent", f"{costs(spent)}; {duration(spent.trial_seconds)} on trial{gpu}")
    if found.commit is not None:
        add("commit", f"{found.commit}\ngit -C {lineage} show {found.commit[:10]}")
    return facts


def _again(known: Dossier) -> str:
    """The further runs, and what the mean of all says."""
    told = "; ".join(run.words for run in known.runs)
    losses = repeats.losses(known.candidate, known.runs)
    if not losses or known.baselines is None:
        return told
    words = standing_words(leaderboard.standing(losses, known.baselines))
    return f"{told}\nmean of {len(losses)} runs {fmean(losses):.4f}: {words}"


def _claims(run: Training) -> str:
    """What the trial says of its training, which nobody has measured."""
    parts = [
        f"training loss {run.train_loss:.4f}",
        f"{run.body_params:,} parameters without embeddings",
        f"{run.peak_memory_mb:,.0f} MB",
    ]
    if run.utilisation is not None:
        parts.append(f"{run.utilisation:.0%} of the device's {run.matmul_rate / 1e12:.3g} TFLOP/s")
    if run.joules is not None:
        parts.append(f"{run.joules / 3.6e6:.3g} kWh")
    if run.compile_seconds:
        parts.append(f"compiled in {duration(run.compile_seconds)}")
    return ", ".join(parts)


def _training(run: Training, work: Work | None) -> list[RenderableType]:
    cpu = f", {duration(run.cpu_seconds)} of processor time" if run.cpu_seconds else ""
    measured = (
        f"{run.params:,} parameters, {run.steps:,} steps, {run.tokens:,} tokens in "
        f"{duration(run.seconds)} ({run.tokens_per_second:,.0f} tokens/s){cpu}"
    )
    counted = (
        f"{thousands(work.operations)} operations, {thousands(work.bytes)} bytes a token" if work else ""
    )
    parts = [Text(f"counted by a fresh process: {counted}")] if work else []
    return _section(
        "Training", Text(measured), *parts, Text(f"claimed by its code: {_claims(run)}", style="dim")
    )


def _compared(scored: Evaluation) -> str:
    """How the answers of the trial were checked."""
    if scored.prefix_error:  # under the first rules
        return (
            f"largest deviation from the bare prefix {scored.prefix_error:.1e} at {scored.prefix_positions} "
            "positions"
        )
    corrected = f"; corrected by {scored.correction:+.2g} nats" if scored.correction else ""
    return f"the same from bare prefixes at {scored.prefix_positions:,} positions{corrected}"


def _evidence(evidence: Evidence, score: Score | None, known: Dossier) -> list[RenderableType]:
    parts: list[RenderableType] = []
    if evidence.failure is not None:
        error = Text(_text(evidence.error, multiline=True) or "no message", style="red")
        parts += _section(f"Failed: {evidence.failure.value}", error)
    if evidence.checks:
        parts += _section("Checks", checks(evidence.checks))
    if evidence.held_out:
        curve = ", ".join(f"{h.loss:.4f} after {h.step}" for h in evidence.held_out)
        parts += _section("Held-out loss in training", Text(f"{curve} steps"))
    if evidence.training is not None:
        parts += _training(evidence.training, evidence.work)
    if (scored := evidence.evaluation) is not None:
        noise = f" ±{score.noise.loss:.4f}" if score else ""
        line = (
            f"held-out loss {scored.loss:.4f}{noise} over {scored.loss_tokens:,} tokens; {_compared(scored)}"
        )
        parts += _section("Evaluation", Text(line), _tasks(scored.tasks, known))
        if probes := [task for task in scored.tasks if task.curve]:
            parts += _section("Probes in training", _probes(probes, known))
    if score is not None:
        rubric = _table("part", "points", "reason", wide="reason")
        for part in score.judgement.parts:
            rubric.add_row(Text(_text(part.name)), Text(f"{part.points:+.2f}"), Text(_text(part.reason)))
        judged = score.judgement
        spread = f", median of {', '.join(f'{mark:g}' for mark in judged.marks)}" if judged.marks else ""
        beyond = f", {judged.beyond:.1f} points beyond" if judged.beyond else ""
        title = f"Judge: {judged.mark:.1f} of 10{beyond} ({_text(judged.judge)}{spread}; DeltaNet is 5)"
        parts += _section(title, rubric)
        sums = (
            f"({score.loss_part:.4f} loss + {score.benchmark_part:.4f} benchmark + "
            f"{score.judge_part:.4f} judge) / 3 = {score.fitness:.4f} ±{score.noise.fitness:.4f}"
        )
        parts += _section("Fitness", Text(sums))
    return parts


def _fresh(rows: Sequence[Beside]) -> RenderableType:
    """Means of the fresh runs beside those of the bar."""
    shown = _table("figure", "candidate", "bar", "difference", "95 %")
    shown.columns[-1].no_wrap = True
    for row in rows:
        difference, interval = row.candidate - row.bar, ""
        if row.interval is not None:
            interval = "{:+.4f} to {:+.4f}".format(*row.interval)
        sign = "worse" if difference * row.better < 0 else "better" if difference else ""
        cells = (row.name, f"{row.candidate:.4f}", f"{row.bar:.4f}", f"{difference:+.4f} {sign}", interval)
        shown.add_row(*map(Text, cells))
    return shown


def _tasks(tasks: Sequence[TaskResult], known: Dossier) -> RenderableType:
    """Scores beside those of DeltaNet (the mean of its runs) and of the parent; below each what the paper
    reads of it, else its accuracy."""
    evidence = known.parent.evidence if known.parent else None
    parent = {t.task: t for t in evidence.evaluation.tasks} if evidence and evidence.evaluation else {}
    base = known.baselines.tasks(SEED_ARCHITECTURE, whole=True) if known.baselines else {}
    shown = _table("task", "score", "DeltaNet", "parent", "chance", "samples", "figure", wide="figure")
    shown.columns[0].no_wrap = max(len(task.task) for task in tasks) <= TASK
    for task in tasks:
        row = [task, base.get(task.task), parent.get(task.task)]
        name = task.score_name.replace("_", " ")
        figure = f"{name} ({'higher' if task.higher_is_better else 'lower'} is better)"
        scores = [_score(one.score if one else None) for one in row]
        cells = (task.task, *scores, _score(task.chance), str(task.samples), figure)
        shown.add_row(*(Text(_text(cell)) for cell in cells))
        for metric in task.figures:
            values = [_score(one.metrics.get(metric) if one else None) for one in row]
            label = metric if task.reported else "accuracy"
            cells = (f"  {label}", *values, _score(task.chance_of(metric)), "", "in no score")
            shown.add_row(*map(Text, cells), style="dim")
    return shown


def _probes(tasks: Sequence[TaskResult], known: Dossier) -> RenderableType:
    """The curves of probes: an answer's mean probability after so many steps, below it those of the
    references, the means of their runs."""
    beside = []
    if known.baselines is not None:
        measured = known.baselines
        beside = [(TITLES[name], measured.tasks(name, whole=True)) for name in measured.names]
    shown = Table.grid(padding=(0, 2, 0, 0))
    for task in tasks:
        others = [(f"  {title}", found[task.task]) for title, found in beside if task.task in found]
        for name, result in [(title_of(task.task) or task.task, task), *others]:
            values = [math.exp(value) for _, value in result.curve]
            bars = "".join(BARS[round(value * (len(BARS) - 1))] for value in values)
            told = ", ".join(f"{value:.3f}" for value in values)
            shown.add_row(Text(_text(name)), Text(bars), Text(told))
        steps = ", ".join(str(step) for step, _ in task.curve)
        shown.add_row(Text(), Text(), Text(f"after {steps} steps", style="dim"))
    return shown


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def checks(found: Sequence[Check]) -> RenderableType:
    """Verdicts as a table, and below it the whole evidence of the failed ones."""
    shown = _table("check", "verdict", "value", "limit", "detail", wide="detail")
    for check in found:
        where = "see below" if check.line is None else f"line {check.line}, see below"
        shown.add_row(
            Text(_text(check.name)),
            Text("ok") if check.passed else Text("failed", style="red"),
            Text(_figure(check.value)),
            Text(_figure(check.tolerance)),
            Text(plain(check.detail, limit=LINE) if check.passed else where),
        )
    failed = [
        Text(f"\n{_text(c.name)}: {_text(c.detail, multiline=True)}", style="red")
        for c in found
        if not c.passed
    ]
    return Group(shown, *failed)


def _analysis(found: Candidate) -> list[RenderableType]:
    analysis = found.analysis
    assert analysis is not None
    table = _table("against", "relation", "loss", "benchmark", "fitness")
    for row in analysis.ablation:
        table.add_row(
            Text(plain(row.against, limit=NAME)),
            Text(_text(row.relation)),
            Text(f"{row.loss:+.4f} ({row.loss_in_noise:+.1f})"),
            Text(f"{row.benchmark:+.2%} ({row.benchmark_in_noise:+.1f})"),
            Text(f"{row.fitness:+.4f} ({row.fitness_in_noise:+.1f})"),
        )
    weak = [Text(f"- {_text(line)}") for line in analysis.weaknesses] or [Text("none beyond noise")]
    prose, _, _ = analysis.text.rpartition("\n---\n")
    said = [Text(f"\n{_text(prose.partition(chr(10))[2].strip(), multiline=True)}")] if prose else []
    made = [Text(f"{c.family.replace('_', ' ')}: {_text(c.label)}") for c in analysis.components]
    origin = analysis.origin
    return [
        *_section(f"Analysis ({_text(analysis.analyst)})", Text(_text(analysis.summary)), *said),
        *_section("Ablation (in brackets: in units of noise)", table),
        *_section("Weaknesses", *weak),
        *(_section("Components", *made) if made else []),
        *(
            _section(f"Origin of the idea: {_text(origin.origin)}", Text(_text(origin.reason)))
            if origin
            else []
        ),
    ]


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _table(*headings: str, wide: str = "") -> Table:
    """A table with right-aligned figures; the first column and `wide` are text."""
    shown = Table(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False, show_edge=False)
    for index, heading in enumerate(headings):
        is_text = index == 0 or heading == wide
        shown.add_column(heading, justify="left" if is_text else "right", overflow="fold")
    return shown
