"""From promotions and fresh runs to claims and their verdicts, and to the runs that are still to be made.

    bar: tuned, then all its runs     claim 1: tuned, runs to the next look, ..., ended     claim 2: ...

A pure function of what is recorded: whoever is killed and goes on comes to the same verdicts, in whatever
order runs ended. Claims end in the order of their promotions. The prior of variances that a claim is judged
by is fitted to the runs of the bar, of all claims before it, and its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from statistics import fmean

import msgspec

from asi_lab.lab import Store, fresh, meta, trial_label
from asi_lab.records import (
    SEED_ID,
    CandidateState,
    Evaluation,
    FreshLoss,
    FreshRun,
    PoolEntry,
    Promotion,
    Run,
    Terms,
)
from asi_lab.scoring import claims, lineage_prior, tuning
from asi_lab.scoring.baselines import MIDPOINT, SEED_ARCHITECTURE, TITLES, Baselines
from asi_lab.scoring.claims import Gain
from asi_lab.scoring.statistics import prior_of
from asi_lab.settings import Settings


class Verdict(StrEnum):
    """What is known of a promoted candidate: it holds today, runs are missing, or nothing was shown."""

    HOLDS = "holds"
    OPEN = "open"
    NOT_SHOWN = "not shown"


class Claim(msgspec.Struct, frozen=True):
    """One promoted candidate.

    `runs` are its fresh runs at its own best learning rate, `rate` that rate over the preset's. A claim that
    has ended was either `dropped` at a look, `failed`, or has all runs; then `gain` says how far it lies
    under the bar, None with fewer than two runs, and `interval` is that of the gain at the family's level; a
    dropped one has none, since how many runs it has depends on what they gave. `tagged` is what no later
    claim takes back.
    """

    promotion: Promotion
    verdict: Verdict
    runs: int
    rate: float | None = None
    dropped: bool = False
    failed: CandidateState | None = None
    gain: Gain | None = None
    interval: tuple[float, float] | None = None
    tagged: bool = False

    @property
    def candidate(self) -> int:
        """The id of the candidate."""
        return self.promotion.candidate


class Verification(msgspec.Struct, frozen=True):
    """All claims of a lab under its terms, in the order of promotion.

    `bar_runs` runs of the bar are there, at `bar_rate` over the preset's learning rate.
    `level` is the false-discovery rate that the procedure keeps. `due` are the runs that can be made now, the
    first first; none where the bar itself has `bar_failed`.
    """

    terms: Terms
    bar_runs: int
    bar_rate: float | None
    level: float
    claims: tuple[Claim, ...]
    due: tuple[Run, ...]
    bar_failed: CandidateState | None = None

    @property
    def count(self) -> dict[Verdict, int]:
        """How many claims have which verdict."""
        return {verdict: sum(claim.verdict is verdict for claim in self.claims) for verdict in Verdict}

    def of(self, candidate: int) -> Claim | None:
        """The claim of a candidate; None where it was not promoted."""
        return next((claim for claim in self.claims if claim.candidate == candidate), None)


class Beside(msgspec.Struct, frozen=True):
    """One figure of the fresh runs: means of candidate and bar, and the 95 % interval of what the candidate
    has more; None where no two runs differ. `better` is the sign of a gain."""

    name: str
    candidate: float
    bar: float
    better: int
    interval: tuple[float, float] | None


class _Found(msgspec.Struct):
    """One subject's runs, as far as they tell."""

    rate: float | None = None
    losses: list[FreshLoss] = []
    failed: CandidateState | None = None
    due: list[Run] = []


def beside(store: Store, found: Verification, claim: Claim) -> list[Beside]:
    """What the fresh runs of a claim gave in tasks and probes, beside those of the bar. Nothing of it is
    claimed: each interval is of one figure alone."""
    counted = [run for run in fresh.runs(store) if not run.is_tuning and not run.failure]

    def of(who: str, rate: float | None, count: int) -> list[Evaluation]:
        return [run.evidence.measured for run in counted if (run.who, run.rate) == (who, rate)][:count]

    mine = of(trial_label(claim.candidate), claim.rate, claim.runs)
    bar = of(found.terms.bar, found.bar_rate, found.bar_runs)
    if not mine or not bar:
        return []
    lines = []
    for task in mine[0].tasks:
        own, theirs = ([e.score_of(task.task) for e in group] for group in (mine, bar))
        lines.append(_beside(task.task, 1 if task.higher_is_better else -1, own, theirs, found.terms.freedom))
    return lines


def _beside(name: str, better: int, mine: Sequence[float], bar: Sequence[float], freedom: float) -> Beside:
    prior, difference = prior_of([mine, bar], freedom, follow_mean=False), fmean(mine) - fmean(bar)
    interval = None
    if prior is not None:
        half = prior.of_difference(mine, bar).margin(0.025)
        interval = difference - half, difference + half
    return Beside(name, fmean(mine), fmean(bar), better, interval)


def tag_text(claim: Claim, found: Verification) -> str:
    """What the tag of a claim says."""
    assert claim.gain is not None
    gain, bar = claim.gain, TITLES[found.terms.bar]
    return (
        f"{gain.gain:+.4f} nats of held-out loss under the mean of {bar}\n\n"
        f"{claim.runs} fresh runs against {found.bar_runs} of {bar}, learning rates {claim.rate:g} and "
        f"{found.bar_rate:g} times the preset's.\nStandard error {gain.error:.4f} with {gain.freedom:.3g} "
        f"degrees of freedom, p = {gain.p:.2g} to one side.\nShown by LORD++ at a false-discovery rate of "
        f"{found.level:.0%} over all tags of this lab."
    )


def promotable(settings: Settings, store: Store) -> list[int]:
    """Candidates that may be promoted, the most promising first: better than DeltaNet in loss and in the
    judge's mark, as in the paper, by what their loss is expected to be given those of their relatives."""
    known = Baselines(settings, store.baselines())
    noise, seed = known.noise().loss, known.anchor(SEED_ARCHITECTURE).loss
    done = [s for s in store.summaries() if s.state is CandidateState.DONE]
    entries = [
        PoolEntry(s.id, -s.loss, noise, s.parent, settings.baselines.seeds if s.id == SEED_ID else 1)
        for s in done
        if s.loss is not None
    ]
    expected = lineage_prior.beliefs(entries, lineage_prior.fitted(entries))
    have = {promotion.candidate for promotion in fresh.promotions(store)}
    better = [
        s.id
        for s in done
        if s.id not in have and s.loss is not None and s.loss < seed and (s.judge or 0.0) > MIDPOINT
    ]
    return sorted(better, key=lambda number: (-expected[number].mean, number))


def terms_of(settings: Settings, store: Store) -> Terms | None:
    """What claims are made under: what the first promotion fixed, or before it what the settings say; None
    before the baselines are measured."""
    if promoted := meta.PROMOTED.read(store):
        return promoted.terms
    known = Baselines.measured(settings, store.baselines())
    if known is None:
        return None
    wanted, freedom = settings.verify, settings.baselines.noise_freedom
    return Terms(known.bar, wanted.bar_runs, wanted.tune, freedom)


def read(settings: Settings, store: Store) -> Verification | None:
    """What a lab's runs say of its claims; None before its baselines are measured."""
    terms = terms_of(settings, store)
    if terms is None:
        return None
    return assess(terms, fresh.promotions(store), fresh.runs(store), trial_label)


def assess(
    terms: Terms,
    promotions: Sequence[Promotion],
    runs: Sequence[FreshRun],
    label: Callable[[int], str],
) -> Verification:
    """What the runs say of the claims. `label` gives the name that a candidate's runs go by."""
    bar, wanted, freedom = terms.bar, terms.bar_runs, terms.freedom
    by_who: dict[str, list[FreshRun]] = {}
    for run in runs:
        by_who.setdefault(run.who, []).append(run)

    def look_at(who: str) -> _Found:
        return _runs_of(who, by_who.get(who, ()), terms)

    of_bar, all_of_bar = look_at(bar), by_who.get(bar, ())
    losses, due = of_bar.losses[:wanted], [*of_bar.due, *_missing(bar, all_of_bar, of_bar.rate, wanted)]
    ended, groups, goes_on = list[Claim](), [losses], len(losses) == wanted
    waiting = list[Claim]()
    for promotion in sorted(promotions, key=lambda promotion: promotion.number):
        who = label(promotion.candidate)
        subject = look_at(who)
        due += subject.due
        claim = _ended(promotion, subject, losses, groups, freedom) if goes_on else None
        if claim is not None:
            ended.append(claim)
            groups.append(subject.losses[: claim.runs])
            continue
        have = len(subject.losses)
        waiting.append(Claim(promotion, Verdict.OPEN, have, subject.rate))
        until = (
            next((look for look in claims.LOOKS if look > have), claims.CAP) if goes_on else claims.LOOKS[0]
        )
        if subject.failed is None:
            due += _missing(who, by_who.get(who, ()), subject.rate, until)
        goes_on = False
    found = (*_judged(ended), *waiting)
    known = terms, len(losses), of_bar.rate, claims.LEVEL, found
    nothing = of_bar.failed or not promotions
    return Verification(*known, () if nothing else tuple(due), of_bar.failed)


def _judged(ended: Sequence[Claim]) -> list[Claim]:
    """The claims that have ended, with verdicts, tags and intervals: a family, in the order of promotion."""
    ps = [1.0 if claim.dropped or claim.failed or claim.gain is None else claim.gain.p for claim in ended]
    holding, tagged = claims.holding(ps), claims.tagged(ps)
    level = claims.interval_level(sum(holding), len(ended))
    return [
        msgspec.structs.replace(
            claim,
            verdict=Verdict.HOLDS if holds else Verdict.NOT_SHOWN,
            tagged=has_tag,
            interval=claim.gain.interval(level) if claim.gain and not claim.dropped else None,
        )
        for claim, holds, has_tag in zip(ended, holding, tagged, strict=True)
    ]


def _runs_of(who: str, runs: Sequence[FreshRun], terms: Terms) -> _Found:
    """The best learning rate, the losses at it up to the first that is missing, and what tuning needs."""
    found = _Found(rate=1.0)
    if terms.tune:
        ended = [run.for_tuning for run in runs if run.is_tuning]
        have = {run.run for run in ended}
        found.due = [run for run in tuning.wanted([who], tuning.LEAST_SEEDS, ended) if run not in have]
        found.rate = None if found.due else tuning.best_rates([who], tuning.LEAST_SEEDS, ended)[who]
        if found.rate is None and not found.due:
            found.failed = next(run.evidence.failure for run in ended if run.failure)  # at every rate
    counted = {run.index: run for run in runs if run.rate == found.rate and not run.is_tuning}
    while run := counted.get(len(found.losses)):
        if run.failure:
            found.failed = run.failure
            break
        found.losses.append(run.loss)
    return found


def _missing(who: str, runs: Sequence[FreshRun], rate: float | None, wanted: int) -> list[Run]:
    """The first `wanted` runs, as far as they are missing; none before the rate is known."""
    have = {run.index for run in runs if run.rate == rate}
    return [] if rate is None else [Run(who, index, rate) for index in range(wanted) if index not in have]


def _ended(
    promotion: Promotion,
    subject: _Found,
    bar: Sequence[FreshLoss],
    groups: Sequence[Sequence[FreshLoss]],
    freedom: float,
) -> Claim | None:
    """A claim that has ended, before its verdict; None for one that goes on."""
    losses, before, look = subject.losses[: claims.CAP], claims.prior(groups, freedom), None
    if before is not None:
        looks = [have for have in claims.LOOKS if have <= len(losses)]
        look = next((have for have in looks if claims.is_futile(losses[:have], bar, before)), None)
    if look is not None:
        losses = losses[:look]
    elif subject.failed is None and len(losses) < claims.CAP:
        return None
    known = claims.prior([*groups, losses], freedom)
    return Claim(
        promotion,
        Verdict.NOT_SHOWN,
        len(losses),
        subject.rate,
        dropped=look is not None,
        failed=None if look is not None else subject.failed,
        gain=claims.gain(losses, bar, known) if known is not None and len(losses) > 1 else None,
    )
