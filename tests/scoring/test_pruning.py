"""Limits for pruning: exact bounds, honest cross-validation, and when they come into force."""

from __future__ import annotations

import random
from types import SimpleNamespace

import msgspec
import pytest

from asi_lab.lab import Store
from asi_lab.lab.config import from_preset
from asi_lab.records import CandidateState, HeldOut
from asi_lab.scoring import pruning
from asi_lab.scoring.pruning import (
    FullRun,
    Pruning,
    allowed_share,
    calibrate,
    full_run,
    is_spared,
    stopped_at,
    upper_bound,
)
from asi_lab.settings import Settings

MARKS = {10: (5.0, 0.1), 50: (4.0, 0.05)}
STEPS = 100


def runs(count: int, noise: float = 0.0) -> list[FullRun]:
    """Candidates whose fitness and losses at both marks go together, up to `noise` noise floors."""
    rng = random.Random(0)
    found = []
    for number in range(count):
        quality = rng.random()  # 0 is the best
        losses = {
            step: loss + 20 * (quality + rng.gauss(0, noise / 20)) * sd for step, (loss, sd) in MARKS.items()
        }
        found.append(FullRun(number + 1, 1 - quality, losses))
    return found


def changed(settings: Settings, **supervise: object) -> Settings:
    return msgspec.structs.replace(
        settings, supervise=msgspec.structs.replace(settings.supervise, **supervise)
    )


@pytest.mark.parametrize(
    ("kills", "good", "bound"),
    [
        (0, 15, 1 - 0.05 ** (1 / 15)),
        (0, 299, 1 - 0.05 ** (1 / 299)),
        (1, 22, 0.1981),
        (0, 0, 1.0),
        (5, 5, 1.0),
    ],
)
def test_the_bound_is_the_exact_one(kills, good, bound):
    assert upper_bound(kills, good) == pytest.approx(bound, abs=5e-5)


def test_one_percent_takes_about_three_hundred_good_runs():
    assert upper_bound(0, 298) > 0.01 > upper_bound(0, 299)


def test_the_allowed_share_tightens_as_more_is_known():
    shares = [allowed_share(good, 0.2) for good in (0, 10, 25, 50, 100, 500, 5000)]
    assert shares == [0.2, 0.2, 0.2, 0.1, 0.05, 0.01, 0.01]
    assert allowed_share(50, 0.05) == 0.05


def test_limits_lie_a_margin_over_the_worst_good_run():
    found = calibrate(runs(60), MARKS, STEPS, 0.2)
    assert found.runs == 60
    assert found.good == 15
    ranked = sorted(runs(60), key=lambda run: -run.merit)[:15]
    for step, (loss, noise) in MARKS.items():
        worst = max((run.losses[step] - loss) / noise for run in ranked)
        assert found.limits[step] == pytest.approx(worst + pruning.MARGIN)


def test_sixty_clean_runs_are_enough_and_fewer_are_not():
    enough, few = calibrate(runs(60), MARKS, STEPS, 0.2), calibrate(runs(50), MARKS, STEPS, 0.2)
    assert enough.kills == few.kills == 0
    assert enough.in_force
    assert not few.in_force
    assert few.bound > 0.2 > enough.bound


def test_what_is_saved_is_what_the_stops_leave_out():
    found = calibrate(runs(60), MARKS, STEPS, 0.2)
    assert found.saved == pytest.approx(
        sum((STEPS - step) * n for step, n in found.stopped.items()) / (60 * STEPS)
    )
    assert 0.4 < found.saved < 0.7
    assert set(found.stopped) <= set(MARKS)


def test_early_losses_that_say_nothing_keep_pruning_out_of_force():
    found = calibrate(runs(60, noise=200), MARKS, STEPS, 0.2)
    assert found.kills > 0
    assert not found.in_force


def test_nothing_is_stopped_where_nothing_is_known():
    for some in ([], runs(3)):
        assert not calibrate(some, MARKS, STEPS, 0.2).in_force
    assert not calibrate(runs(100), {}, STEPS, 0.2).in_force
    incomplete = [msgspec.structs.replace(run, losses={10: 5.0}) for run in runs(100)]
    assert calibrate(incomplete, MARKS, STEPS, 0.2).runs == 0


def test_a_curve_is_stopped_at_the_first_mark_over_its_limit():
    limits = {10: 2.0, 50: -1.0}
    assert stopped_at({10: 3.0, 50: 5.0}, limits) == 10
    assert stopped_at({10: 2.0, 50: -0.9}, limits) == 50
    assert stopped_at({10: -9.0, 50: -1.0}, limits) is None
    assert stopped_at({10: 9.0, 50: 9.0}, {}) is None


def test_only_runs_that_nothing_could_stop_calibrate(make_candidate):
    done = make_candidate(1)
    curve = (HeldOut(10, 5.0, 0.0, 0.1), HeldOut(50, 4.0, 0.0, 0.1))
    evidence = msgspec.structs.replace(done.evidence, held_out=curve)
    whole = msgspec.structs.replace(done, evidence=evidence)
    assert full_run(whole) == FullRun(1, done.score.fitness, {10: 5.0, 50: 4.0})
    prunable = msgspec.structs.replace(whole, evidence=msgspec.structs.replace(evidence, prunable=True))
    failed = make_candidate(2, state=CandidateState.PRUNED)
    assert [full_run(candidate) for candidate in (prunable, done, failed)] == [None, None, None]


def test_some_candidates_are_spared_by_their_id_alone():
    settings = from_preset("micro")
    spared = [number for number in range(1, 1001) if is_spared(number, settings)]
    assert spared == [number for number in range(1, 1001) if is_spared(number, settings)]
    assert 70 < len(spared) < 130
    none = msgspec.structs.replace(
        settings, supervise=msgspec.structs.replace(settings.supervise, spared=0.0)
    )
    assert not any(is_spared(number, none) for number in range(1, 1001))


def test_a_lab_prunes_once_its_candidates_allow_it(tmp_path, make_candidate):
    settings = from_preset("micro")
    baselines = SimpleNamespace(marks=lambda: MARKS)
    with Store.open(tmp_path / "store") as store:
        pruning = Pruning(settings, store)
        assert not pruning.calibration(baselines).in_force
        for run in runs(60):
            done = make_candidate(run.id, fitness=run.merit)
            curve = tuple(HeldOut(step, loss, 0.0, 0.1) for step, loss in run.losses.items())
            evidence = msgspec.structs.replace(done.evidence, held_out=curve)
            store.put(msgspec.structs.replace(done, evidence=evidence))
        found = pruning.calibration(baselines)
    assert found.in_force
    number = next(number for number in range(61, 100) if not is_spared(number, settings))
    spared = next(number for number in range(61, 200) if is_spared(number, settings))
    assert pruning.applied(number, found) == found.limits
    assert pruning.applied(spared, found) == {}
    off = msgspec.structs.replace(
        settings, supervise=msgspec.structs.replace(settings.supervise, prune=False)
    )
    assert Pruning(off, store).applied(number, found) == {}
