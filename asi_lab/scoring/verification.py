"""From promotions and fresh runs to claims and their verdicts, and to the runs that are still to be made.

    bar: tuned, then all its runs     claim 1: tuned, runs to the next look, ..., ended     claim 2: ...

A pure function of what is recorded: whoever is killed and goes on comes to the same verdicts, in whatever
order runs ended. Claims end in the order of their promotions. The prior of variances that a claim is judged
by is fitted to the runs of the bar, of all claims before it, and its own. What each of them needs in any case
is made first, a run of each in turn, so that little time tells something of all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum

import msgspec

from asi_lab.lab import Store, fresh, meta, trial_label
from asi_lab.records import CandidateState, FreshLoss, FreshRun, Promotion, Run, Terms
from asi_lab.scoring import claims, tuning
from asi_lab.scoring.baselines import TITLES, Baselines
from asi_lab.scoring.claims import Gain
from asi_lab.settings import Settings

BY_LOT = 2
"""Fresh runs of a candidate that was drawn by lot, at the preset's learning rate."""

LOST = 2
"""Fresh runs of the bar that may fail and are made up for by others: without them its mean is lower, so that
less is claimed. With more of them nothing can be claimed."""

BESIDE = 3
"""Fresh runs of each reference that is shown beside the claims."""


class Verdict(StrEnum):
    """What is known of a promoted candidate: it holds today, runs are missing, or nothing was shown."""

    HOLDS = "holds"
    OPEN = "open"
    NOT_SHOWN = "not shown"


class Claim(msgspec.Struct, frozen=True):
    """One promoted candidate.

    `runs` are its fresh runs at its own best learning rate, `rate` that rate over the preset's. `gain` says
    how far it lies under the bar, so far where the claim is open; None with fewer than two runs. A claim that
    has ended was either `dropped` at a look, `failed`, or has all runs; `interval` is that of its gain at the
    family's level; a dropped one has none, since how many runs it has depends on what they gave. `tagged` is
    what no later claim takes back.
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
    """All claims at one scale under its terms, in the order of promotion.

    `bar_runs` runs of the bar are there, at `bar_rate` over the preset's learning rate.
    `level` is the false-discovery rate that the procedure keeps. `due` are the runs that can be made now, the
    first first; none where the bar itself has `bar_failed`. `losses` are the fresh held-out losses (nats per
    token) that count, one a run, by whose they are; those of `drawn` candidates are of the preset's rate.
    """

    terms: Terms
    bar_runs: int
    bar_rate: float | None
    level: float
    claims: tuple[Claim, ...]
    due: tuple[Run, ...]
    losses: dict[str, tuple[FreshLoss, ...]]
    drawn: tuple[int, ...] = ()
    bar_failed: CandidateState | None = None

    @property
    def count(self) -> dict[Verdict, int]:
        """How many claims have which verdict."""
        return {verdict: sum(claim.verdict is verdict for claim in self.claims) for verdict in Verdict}

    def of(self, candidate: int) -> Claim | None:
        """The claim of a candidate; None where it was not promoted."""
        return next((claim for claim in self.claims if claim.candidate == candidate), None)


class _Found(msgspec.Struct):
    """One subject's runs, as far as they tell."""

    rate: float | None = None
    losses: list[FreshLoss] = []
    lost: int = 0
    failed: CandidateState | None = None
    due: list[Run] = []


def words(claim: Claim, found: Verification) -> str:
    """What is known of one promoted candidate."""
    title = TITLES.get(found.terms.bar, found.terms.bar)
    told = f"{claim.verdict}: {_runs(claim)}"
    if claim.gain is not None:
        side = "under" if claim.gain.gain >= 0 else "above"
        told += (
            f", held-out loss {abs(claim.gain.gain):.4f} nats {side} the mean of {found.bar_runs} of {title}"
        )
    if claim.interval is not None:
        low, high = claim.interval
        told += f" (gain {low:+.4f} to {high:+.4f} at {confidence(found)})"
    return f"{told}; tagged" if claim.tagged else told


def _runs(claim: Claim) -> str:
    if claim.failed:
        return f"failed after {claim.runs} fresh runs ({claim.failed})"
    return f"{claim.runs} fresh runs{', dropped at a look' if claim.dropped else f' of {claims.CAP}'}"


def confidence(found: Verification) -> str:
    """The level of the intervals, in per cent."""
    ended = len(found.claims) - found.count[Verdict.OPEN]
    return f"{100 * (1 - claims.interval_level(found.count[Verdict.HOLDS], ended)):.4g} %"


def tag_text(claim: Claim, found: Verification, scale: str) -> str:
    """What the tag of a claim at that scale says."""
    assert claim.gain is not None
    gain, bar = claim.gain, TITLES[found.terms.bar]
    return (
        f"{gain.gain:+.4f} nats of held-out loss under the mean of {bar} at {scale}\n\n"
        f"{claim.runs} fresh runs against {found.bar_runs} of {bar}, learning rates {claim.rate:g} and "
        f"{found.bar_rate:g} times the preset's.\nStandard error {gain.error:.4f} with {gain.freedom:.3g} "
        f"degrees of freedom, p = {gain.p:.2g} to one side.\nShown by LORD++ at a false-discovery rate of "
        f"{found.level:.0%} over all tags of this lab at that scale."
    )


def read(settings: Settings, store: Store) -> Verification | None:
    """What a lab's runs say of its claims at its own scale; None before its baselines are measured."""
    if found := of_rung(store, ""):
        return found
    terms = first_terms(settings, store)
    return None if terms is None else assess(terms, (), (), trial_label)


def of_rung(store: Store, rung: str) -> Verification | None:
    """What the runs at a scale say of the claims there; None before the first promotion."""
    known = meta.promoted(rung).read(store)
    if known is None:
        return None
    return assess(known.terms, known.promotions, fresh.runs(store, rung), trial_label)


def higher(store: Store) -> dict[str, Verification]:
    """The claims at the scales beyond the lab's own, by scale, where candidates were promoted."""
    found = ((rung, of_rung(store, rung)) for rung in fresh.rungs(store))
    return {rung: verified for rung, verified in found if verified}


def first_terms(settings: Settings, store: Store) -> Terms | None:
    """What the claims at a lab's own scale will be made under; None before its baselines are measured."""
    known = Baselines.measured(settings, store.baselines())
    return None if known is None else terms_at(settings, known.bar)


def terms_at(settings: Settings, bar: str) -> Terms:
    """What claims are made under by the settings of a scale with that bar."""
    wanted, references = settings.verify, settings.baselines
    beside = tuple(name for name in references.references if name != bar)
    return Terms(bar, wanted.bar_runs, wanted.tune, references.noise_freedom, beside)


def assess(
    terms: Terms,
    promotions: Sequence[Promotion],
    runs: Sequence[FreshRun],
    label: Callable[[int], str],
) -> Verification:
    """What the runs say of the claims. `label` gives the name that a candidate's runs go by."""
    by_who: dict[str, list[FreshRun]] = {}
    for run in runs:
        by_who.setdefault(run.who, []).append(run)

    def look_at(who: str, terms: Terms = terms, may_lose: int = 0) -> _Found:
        return _runs_of(who, by_who.get(who, ()), terms, may_lose)

    def missing(who: str, subject: _Found, wanted: int) -> list[Run]:
        if subject.failed:
            return []
        return _missing(who, by_who.get(who, ()), subject.rate, wanted + subject.lost)

    bar, wanted, freedom = terms.bar, terms.bar_runs, terms.freedom
    of_bar = look_at(bar, may_lose=LOST)
    losses, due = of_bar.losses[:wanted], [*of_bar.due, *missing(bar, of_bar, wanted)]
    known = {bar: tuple(losses)}
    ended, groups, goes_on = list[Claim](), [losses], len(losses) == wanted
    waiting = list[Claim]()
    in_order = sorted(promotions, key=lambda promotion: promotion.number)
    for promotion in (one for one in in_order if not one.drawn):
        who = label(promotion.candidate)
        subject = look_at(who)
        due += subject.due
        claim = _ended(promotion, subject, losses, groups, freedom) if goes_on else None
        if claim is not None:
            ended.append(claim)
            groups.append(subject.losses[: claim.runs])
            known[who] = tuple(groups[-1])
            continue
        mine = subject.losses[: claims.CAP]
        known[who] = tuple(mine)
        so_far = _gain(mine, losses, groups, freedom)
        waiting.append(Claim(promotion, Verdict.OPEN, len(mine), subject.rate, gain=so_far))
        next_look = next((look for look in claims.LOOKS if look > len(mine)), claims.CAP)
        due += missing(who, subject, next_look if goes_on else claims.LOOKS[0])
        goes_on = False
    drawn = tuple(promotion.candidate for promotion in in_order if promotion.drawn)
    untuned = msgspec.structs.replace(terms, tune=False)
    for who in map(label, drawn):
        subject = look_at(who, untuned)
        known.setdefault(who, tuple(subject.losses[:BY_LOT]))
        due += missing(who, subject, BY_LOT)
    due.sort(key=lambda run: (not run.is_tuning, run.seed_index))
    for who in terms.beside:
        subject = look_at(who)
        known[who] = tuple(subject.losses[:BESIDE])
        due += [*subject.due, *missing(who, subject, BESIDE)]
    nothing = of_bar.failed or not promotions
    return Verification(
        terms=terms,
        bar_runs=len(losses),
        bar_rate=of_bar.rate,
        level=claims.LEVEL,
        claims=(*_judged(ended), *waiting),
        due=() if nothing else tuple(dict.fromkeys(due)),
        losses=known,
        drawn=drawn,
        bar_failed=of_bar.failed,
    )


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


def _runs_of(who: str, runs: Sequence[FreshRun], terms: Terms, may_lose: int) -> _Found:
    """The best learning rate, the losses at it up to the first that is missing, and what tuning needs. It has
    failed with more failed runs than it `may_lose`."""
    found = _Found(rate=1.0)
    if terms.tune:
        ended = [run.for_tuning for run in runs if run.is_tuning]
        have = {run.run for run in ended}
        found.due = [run for run in tuning.wanted([who], tuning.LEAST_SEEDS, ended) if run not in have]
        found.rate = None if found.due else tuning.best_rates([who], tuning.LEAST_SEEDS, ended)[who]
        if found.rate is None and not found.due:
            found.failed = next(run.evidence.failure for run in ended if run.failure)  # at every rate
    counted = {run.index: run for run in runs if run.rate == found.rate and not run.is_tuning}
    while run := counted.get(len(found.losses) + found.lost):
        if not run.failure:
            found.losses.append(run.loss)
        elif found.lost < may_lose:
            found.lost += 1
        else:
            found.failed = run.failure
            break
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
    return Claim(
        promotion,
        Verdict.NOT_SHOWN,
        len(losses),
        subject.rate,
        dropped=look is not None,
        failed=None if look is not None else subject.failed,
        gain=_gain(losses, bar, groups, freedom),
    )


def _gain(
    losses: Sequence[FreshLoss],
    bar: Sequence[FreshLoss],
    groups: Sequence[Sequence[FreshLoss]],
    freedom: float,
) -> Gain | None:
    """How far these losses lie under the bar's; None with fewer than two runs of either."""
    known = claims.prior([*groups, losses], freedom)
    enough = known is not None and min(len(losses), len(bar)) > 1
    return claims.gain(losses, bar, known) if enough and known else None
