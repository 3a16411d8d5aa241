"""How far over the baseline's curve a candidate may lie before it is stopped.

At every mark of its training a candidate's held-out loss is compared with the baseline's, in units of the sd
of one run there. The limit at a mark is the highest curve of any good, fully trained candidate, plus a
margin; it may be negative, where all good ones lie under the baseline. How many good candidates such limits
stop is found by cross-validation: each part of the runs is judged by the limits that the other parts give.
Pruning is in force only while the exact 95 % bound on that share is under a limit, which falls as more is
known.

Only runs that no pruning could have stopped count, so that what was pruned cannot flatter the figures.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

import msgspec

from asi_lab.common.randomness import keyed_random
from asi_lab.lab import Store, meta
from asi_lab.records import Candidate, CandidateState
from asi_lab.scoring.baselines import Baselines
from asi_lab.settings import Settings

TOP = 0.25
"""The share of the candidates that counts as good, by merit."""
MARGIN = 2.0
"""Noise floors added to the largest deviation that a good candidate ever had at a mark."""
FOLDS = 5
CONFIDENCE = 0.95
LEAST_LIMIT = 0.01
KILLS_FORGIVEN = 5.0
"""The share of good candidates that may be stopped falls as this over their number: 3 would forgive no
false kill (the rule of three), 5 forgives one."""

Limits = dict[int, float]
"""By the steps done at a mark: the most sd of one run over the baseline's."""


class FullRun(msgspec.Struct, frozen=True):
    """A candidate that was trained to the end: its held-out losses at the marks (nats per token), by the
    steps done there."""

    id: int
    merit: float
    losses: dict[int, float]


class Calibration(msgspec.Struct, frozen=True):
    """What the full runs say about pruning.

    Of `good` candidates among `runs`, `kills` were stopped in cross-validation: a share of at most `bound`
    (95 %), where at most `allowed` is. `limits` are those that all runs give, empty without runs. `stopped`
    is how many runs cross-validation stopped, by mark; `saved` the share of all training steps it saved.
    """

    runs: int
    good: int
    kills: int
    bound: float
    allowed: float
    limits: Limits
    stopped: dict[int, int]
    saved: float

    @property
    def in_force(self) -> bool:
        """Whether candidates may be pruned."""
        return bool(self.limits) and self.bound <= self.allowed


def full_run(candidate: Candidate) -> FullRun | None:
    """What a candidate adds to the calibration: None unless it is scored and no pruning could stop it."""
    evidence, score = candidate.evidence, candidate.score
    if candidate.state is not CandidateState.DONE or evidence is None or score is None or evidence.prunable:
        return None
    losses = {held_out.step: held_out.loss for held_out in evidence.held_out}
    return FullRun(candidate.id, score.merit, losses) if losses else None


class Pruning:
    """The limits that apply to the candidates of one lab, from the candidates that ended before. Usable from
    several threads."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self.settings, self.store = settings, store
        self._runs: dict[int, FullRun | None] = {}
        self._lock = threading.Lock()

    def calibration(self, baselines: Baselines, last_id: int | None = None) -> Calibration:
        """What the candidates up to `last_id` say, by default all."""
        with self._lock:
            for summary in self.store.summaries():
                if summary.state is CandidateState.DONE and summary.id not in self._runs:
                    candidate = self.store.get(summary.id)
                    self._runs[summary.id] = full_run(candidate) if candidate else None
            runs = [run for run in self._runs.values() if run is not None]
        if last_id is not None:
            runs = [run for run in runs if run.id <= last_id]
        settings = self.settings
        return calibrate(runs, baselines.marks(), settings.train.steps, settings.supervise.false_kills)

    def limits(self, candidate_id: int, baselines: Baselines, last_id: int) -> Limits:
        """The limits for one candidate, from those up to `last_id`: none before they are calibrated, or if it
        is spared. That pruning begins or ends is news."""
        found = self.calibration(baselines, last_id)
        if found.in_force != bool(meta.PRUNING.read(self.store)):
            words = "begins" if found.in_force else "ends"
            message = (
                f"pruning {words}: of {found.good} good candidates {found.kills} would have been stopped, at "
                f"most {found.bound:.1%} (95 %), allowed {found.allowed:.1%}; asi-lab calibrate shows more"
            )
            meta.PRUNING.write(self.store, found.in_force, ("note", message, {}))
        return self.applied(candidate_id, found)

    def applied(self, candidate_id: int, found: Calibration) -> Limits:
        """What of a calibration applies to one candidate."""
        wanted = self.settings.supervise.prune and found.in_force
        return found.limits if wanted and not is_spared(candidate_id, self.settings) else {}


def calibrate(
    runs: Sequence[FullRun], marks: Mapping[int, tuple[float, float]], steps: int, setting: float
) -> Calibration:
    """Find the limits, and by cross-validation what they cost and save.

    Args:
        runs: those without a loss at one of the marks are left out.
        marks: by steps done, the baseline's held-out loss and its sd (nats per token).
        steps: the length of a whole training.
        setting: the largest share of good candidates that may be stopped.
    """
    curves = {run.id: _above(run, marks) for run in runs if marks and run.losses.keys() >= marks.keys()}
    ranked = sorted((run for run in runs if run.id in curves), key=lambda run: (-run.merit, run.id))
    good = {run.id for run in ranked[: round(TOP * len(ranked))]}
    ids = sorted(curves)
    stopped: dict[int, int] = {}
    kills = saved = 0
    for fold in range(FOLDS):
        limits = _limits([curves[i] for i in set(ids) - set(ids[fold::FOLDS]) if i in good])
        for number in ids[fold::FOLDS]:
            step = stopped_at(curves[number], limits)
            if step is not None:
                stopped[step] = stopped.get(step, 0) + 1
                saved += steps - step
                kills += number in good
    return Calibration(
        runs=len(ids),
        good=len(good),
        kills=kills,
        bound=upper_bound(kills, len(good)),
        allowed=allowed_share(len(good), setting),
        limits=_limits([curves[i] for i in good]),
        stopped=dict(sorted(stopped.items())),
        saved=saved / (steps * len(ids)) if ids else 0.0,
    )


def _above(run: FullRun, marks: Mapping[int, tuple[float, float]]) -> dict[int, float]:
    """Noise floors over the baseline at every mark."""
    return {step: (run.losses[step] - loss) / noise for step, (loss, noise) in sorted(marks.items())}


def _limits(good: Sequence[dict[int, float]]) -> Limits:
    """At every mark the largest deviation of a good candidate, and the margin; empty without good ones."""
    return {step: max(curve[step] for curve in good) + MARGIN for step in (good[0] if good else ())}


def stopped_at(above: Mapping[int, float], limits: Limits) -> int | None:
    """The first mark at which a curve lies over its limit, None where it never does."""
    return next((step for step, limit in limits.items() if above[step] > limit), None)


def upper_bound(kills: int, good: int) -> float:
    """Exact one-sided 95 % bound on a share of which `kills` of `good` were seen (Clopper and Pearson)."""
    if kills >= good:
        return 1.0
    from scipy.special import betaincinv

    return float(betaincinv(kills + 1, good - kills, CONFIDENCE))


def allowed_share(good: int, setting: float) -> float:
    """The share of good candidates that pruning may stop at most, once `good` of them have been seen."""
    return min(setting, max(LEAST_LIMIT, KILLS_FORGIVEN / good)) if good else setting


def is_spared(candidate_id: int, settings: Settings) -> bool:
    """Whether a candidate is never pruned, so that false kills go on being measured."""
    chance = keyed_random(settings.seed, candidate_id, "spared").random()
    return chance < settings.supervise.spared
