"""The finished candidates by merit, beside the references, with what luck alone would give.

All figures are judged by the noise as it is known now, against the means of all runs of the references; the
first of these is the lab's bar.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

import msgspec

from asi_lab.lab import Store
from asi_lab.lab.summary import Summary
from asi_lab.records import SEED_ID, Against, Arm, CandidateState, Noise, is_kin
from asi_lab.scoring import fitness, lineage_prior, verification
from asi_lab.scoring.archive import pool_entries
from asi_lab.scoring.baselines import SEED_ARCHITECTURE, Baselines
from asi_lab.scoring.lineage_prior import Belief
from asi_lab.settings import Settings
from asi_lab.view import arms
from asi_lab.view.arms import Compared

LEVEL = 0.05
"""Chance of a single false win: a candidate no better than a reference is marked this often."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One line. `rank` and `id` are None for a reference, whose figures are means of `runs`.

    `gain` is the relative improvement in loss over the bar's mean, `gain_in_noise` the same in units of the
    sd of that difference, None for the bar itself and without noise. `beats` names the references that are
    beaten by the one-sided t-test. `beyond` are points above the end of the judge's scale, which count for
    the rank alone. `pool` is what the pool would rank it by: its merit given the runs of its relatives; None
    for a reference, and for candidates of a control that is apart from the pool. `verdict` is what is claimed
    of it, by fresh runs; empty where it was not promoted. `arm` is its arm, None for a reference.
    """

    rank: int | None
    id: int | None
    name: str
    parent: int | None
    runs: int
    loss: float
    gain: float
    gain_in_noise: float | None
    beats: tuple[str, ...]
    benchmark_gain: float
    judge: float
    fitness: float
    params: int | None
    commit: str | None
    beats_bar: bool = False
    pool: Belief | None = None
    beyond: float = 0.0
    verdict: str = ""
    arm: Arm | None = None


class Board(msgspec.Struct, frozen=True):
    """The leaderboard of a lab.

    `bar` names the reference that candidates have to beat. By reference, the bar first: `margins` are how far
    (nats per token) under its mean a single run must be to beat it at `level`, `beating` how many of the
    `scored` candidates do; `expected_by_luck` is how many would if none were better. `arms` are those of the
    search and its controls, empty where there are none to compare.
    """

    noise: Noise
    bar: str
    margins: dict[str, float]
    level: float
    baselines: tuple[Row, ...]
    candidates: tuple[Row, ...]
    scored: int
    beating: dict[str, int]
    expected_by_luck: float
    arms: tuple[Compared, ...] = ()


class Standing(msgspec.Struct, frozen=True):
    """A held-out loss against the means of the references, the `bar` first of `against`. `gain` is the
    relative improvement over the bar, positive when better."""

    bar: Against
    against: tuple[Against, ...]
    gain: float

    @property
    def beats(self) -> tuple[str, ...]:
        """The references that it beats."""
        return tuple(one.reference for one in self.against if one.is_better)


def standing(losses: Sequence[float], baselines: Baselines) -> Standing:
    """How an architecture that gave these losses, one a run, stands to the references."""
    against = baselines.against_all(losses)
    loss, bar = fmean(losses), against[0]
    mean = loss - bar.difference
    return Standing(bar, against, (mean - loss) / mean)


def read(store: Store, settings: Settings) -> Board | None:
    """The board of a store, None before the baselines are measured."""
    baselines = Baselines.measured(settings, store.baselines())
    if baselines is None:
        return None
    return claimed(board(baselines, store.summaries()), settings, store)


def claimed(found: Board, settings: Settings, store: Store) -> Board:
    """The same board with what is claimed of each candidate at the lab's own scale."""
    claims = verification.read(settings, store)
    verdicts = {claim.candidate: claim.verdict.value for claim in claims.claims} if claims else {}
    rows = (msgspec.structs.replace(row, verdict=verdicts.get(row.id or 0, "")) for row in found.candidates)
    return msgspec.structs.replace(found, candidates=tuple(rows)) if verdicts else found


def board(baselines: Baselines, summaries: Sequence[Summary]) -> Board:
    """Rank the finished candidates; the seed stands among the references."""
    done = [s for s in summaries if s.state is CandidateState.DONE]
    pooled = [s for s in done if is_kin(Arm.EVOLUTION, s.arm)]
    known = pool_entries(pooled, baselines.settings)
    worth = lineage_prior.beliefs(known, lineage_prior.fitted(known))
    ranked = sorted((s for s in done if s.id != SEED_ID), key=lambda s: (-(s.merit or 0.0), s.id))
    rows = tuple(_row(s, rank, baselines, worth.get(s.id)) for rank, s in enumerate(ranked, start=1))
    names = sorted(baselines.names, key=lambda name: name != baselines.bar)
    return Board(
        noise=baselines.noise(),
        bar=baselines.bar,
        margins={name: baselines.margin(name) for name in names},
        level=LEVEL,
        baselines=tuple(_reference(name, baselines) for name in names),
        candidates=rows,
        scored=len(rows),
        beating={name: sum(name in row.beats for row in rows) for name in names},
        expected_by_luck=LEVEL * len(rows),
        arms=arms.compared(summaries, baselines.anchor(baselines.bar, whole=True).loss),
    )


def _row(summary: Summary, rank: int, baselines: Baselines, worth: Belief | None) -> Row:
    assert summary.loss is not None
    assert summary.fitness is not None
    assert summary.benchmark_gain is not None
    assert summary.judge is not None
    found = standing([summary.loss], baselines)
    return Row(
        rank=rank,
        id=summary.id,
        name=summary.name,
        parent=summary.parent,
        runs=1,
        loss=summary.loss,
        gain=found.gain,
        gain_in_noise=found.bar.in_sd,
        beats=found.beats,
        beats_bar=found.bar.is_better,
        benchmark_gain=summary.benchmark_gain,
        judge=summary.judge,
        fitness=summary.fitness,
        params=summary.params,
        commit=summary.commit,
        pool=worth,
        beyond=summary.beyond,
        arm=summary.arm,
    )


def _reference(name: str, baselines: Baselines) -> Row:
    runs = baselines.evaluations(name)
    losses = [run.loss for run in runs]
    found = standing(losses, baselines)
    return Row(
        rank=None,
        id=SEED_ID if name == SEED_ARCHITECTURE else None,
        name=name,
        parent=None,
        runs=len(runs),
        loss=fmean(losses),
        gain=found.gain,
        gain_in_noise=None if name == baselines.bar else found.bar.in_sd,
        beats=tuple(other for other in found.beats if other != name),
        benchmark_gain=fmean(fitness.benchmark_gain(run, baselines.reference) for run in runs),
        judge=baselines.mark(name),
        fitness=baselines.fitness(name),
        params=baselines.anchor(name).params,
        commit=None,
    )
