"""Who is promoted at which scale, and what the claims there are made under."""

from __future__ import annotations

import random
from collections.abc import Sequence
from statistics import fmean

from asi_lab.common.randomness import keyed_seed
from asi_lab.lab import Store, fresh, meta
from asi_lab.lab.rungs import Rung
from asi_lab.records import SEED_ID, TUNING_SEED, CandidateState, FreshRun, PoolEntry, Run, Terms
from asi_lab.scoring import lineage_prior, tuning, verification
from asi_lab.scoring.baselines import MIDPOINT, SEED_ARCHITECTURE, Baselines
from asi_lab.scoring.verification import Verdict
from asi_lab.settings import Settings


def terms(rung: Rung, store: Store) -> Terms | None:
    """What claims at a scale are made under: what the first promotion fixed, or before it what the settings
    say; None as long as the bar is not known, and `due` says which runs that takes."""
    if promoted := meta.promoted(rung.name).read(store):
        return promoted.terms
    if not rung.name:
        return verification.first_terms(rung.settings, store)
    bar = rung.settings.baselines.bar or _best(rung.settings, fresh.runs(store, rung.name))
    return verification.terms_at(rung.settings, bar) if bar else None


def due(rung: Rung, store: Store) -> list[Run]:
    """The runs of references that a scale beyond the lab's own takes before its bar is known: those of
    tuning, which count for nothing else. None where a recorded study names the bar."""
    if not rung.name or terms(rung, store):
        return []
    ended = fresh.runs(store, rung.name)
    have = {run.run for run in ended}
    return [run for run in _comparing(rung.settings, ended) if run not in have]


def _comparing(settings: Settings, ended: Sequence[FreshRun]) -> list[Run]:
    names = settings.baselines.references
    if settings.verify.tune:
        return tuning.wanted(names, tuning.LEAST_SEEDS, [run.for_tuning for run in ended])
    return [Run(name, TUNING_SEED + seed, 1.0) for seed in range(tuning.LEAST_SEEDS) for name in names]


def _best(settings: Settings, ended: Sequence[FreshRun]) -> str:
    """The reference of the lowest mean loss at its own best rate; empty before all are known, or where all
    failed."""
    tried = {run.run for run in ended}
    if not all(run in tried for run in _comparing(settings, ended)):
        return ""
    names, known = settings.baselines.references, [run.for_tuning for run in ended if run.is_tuning]
    rates: dict[str, float | None] = dict.fromkeys(names, 1.0)
    if settings.verify.tune:
        rates = tuning.best_rates(names, tuning.LEAST_SEEDS, known)
    means = dict[str, float]()
    for name in names:
        mine = [run for run in known if (run.architecture, run.rate) == (name, rates[name])]
        if mine and not any(run.failure for run in mine):
            means[name] = fmean(run.evidence.measured.loss for run in mine)
    return min(means, key=means.__getitem__, default="")


def is_of_use(rung: Rung, below: Rung | None, store: Store) -> bool:
    """Whether candidates were promoted at a scale, or may be."""
    return bool(fresh.promotions(store, rung.name) or promising(rung, below, store))


def nobody(rung: Rung, below: Rung | None) -> str:
    """What is said where there is none."""
    why = "is better than DeltaNet both in loss and in the judge's mark"
    if below is not None:
        why = f"has ended its claim at {below.title} with all runs and a gain"
    at = f" at {rung.title}" if rung.name else ""
    return f"no candidate {why}: none is promoted{at}"


def promising(rung: Rung, below: Rung | None, store: Store) -> list[int]:
    """Candidates that may be promoted at a scale, the most promising first.

    At the lab's own: those better than DeltaNet in loss and in the judge's mark, as in the paper (section
    3.1), by what their loss is expected to be given those of their relatives. Beyond it: those whose claim at
    the scale `below` has ended with all runs and a gain, the ones that hold first.
    """
    have = {one.candidate for one in fresh.promotions(store, rung.name) if not one.drawn}
    chosen = _searched(rung.settings, store) if below is None else _verified(below, store)
    return [number for number in chosen if number not in have]


def _verified(below: Rung, store: Store) -> list[int]:
    found = verification.of_rung(store, below.name)
    worth = {
        claim.candidate: (claim.verdict is Verdict.HOLDS, claim.gain.gain)
        for claim in (found.claims if found else ())
        if claim.interval and claim.gain and not claim.failed
    }
    better = [number for number, (holds, gain) in worth.items() if holds or gain > 0]
    return sorted(better, key=lambda number: worth[number], reverse=True)


def _searched(settings: Settings, store: Store) -> list[int]:
    known = Baselines(settings, store.baselines())
    noise, seed = known.noise().loss, known.anchor(SEED_ARCHITECTURE).loss
    done = [s for s in store.summaries() if s.state is CandidateState.DONE]
    entries = [
        PoolEntry(s.id, -s.loss, noise, s.parent, settings.baselines.seeds if s.id == SEED_ID else 1)
        for s in done
        if s.loss is not None
    ]
    expected = lineage_prior.beliefs(entries, lineage_prior.fitted(entries))
    better = [s.id for s in done if s.loss is not None and s.loss < seed and (s.judge or 0.0) > MIDPOINT]
    return sorted(better, key=lambda number: (-expected[number].mean, number))


def by_lot(rung: Rung, below: Rung | None, store: Store) -> list[int]:
    """Candidates to be drawn by lot at a scale, as many as the settings say beside those there already: they
    keep the range whole over which the scales are compared. Beyond the lab's own scale those drawn below."""
    before = [one.candidate for one in fresh.promotions(store, below.name if below else "") if one.drawn]
    if below is not None:
        return before
    claimed = {one.candidate for one in fresh.promotions(store)}
    others = [
        s.id for s in store.summaries() if s.state is CandidateState.DONE and s.id not in claimed | {SEED_ID}
    ]
    rng = random.Random(keyed_seed(rung.settings.seed, len(claimed), "by lot"))
    return rng.sample(others, min(rung.settings.verify.random, len(others)))
