"""The rules that end a training run early, each with its evidence, and what must not end one."""

from __future__ import annotations

import math

import pytest

from asi_lab.engineer.monitor import Ended, Expectations, Expected, Monitor
from asi_lab.protocol import Progress
from asi_lab.records import CandidateState, HeldOut
from asi_lab.settings import Supervise

S = CandidateState
RULES = Supervise()
BASELINE = Expectations(
    marks={100: Expected(5.0, 0.05), 200: Expected(4.0, 0.02)},
    seconds_per_step=0.1,
    chance=7.0,
    prune_above={100: 3.0, 200: -2.0},
)


class Clock:
    """Monotonic time that passes when told."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


def point(step: int, loss: float = 3.0) -> Progress:
    return Progress(step, 1000, step * 10, loss, 1e-3, 100.0, 10.0)


def held_out(step: int, loss: float, seconds: float = 0.0) -> HeldOut:
    return HeldOut(step, loss, 0.0, seconds)


def see(watched: Monitor, clock: Clock, seconds: float, *reports: Progress | HeldOut) -> None:
    for report in reports:
        clock.now += seconds
        if isinstance(report, HeldOut):
            watched.see_held_out(report)
        else:
            watched.see(report)


def ended(watched: Monitor, clock: Clock, *reports: Progress | HeldOut, seconds: float = 0.0) -> Ended:
    with pytest.raises(Ended) as caught:
        see(watched, clock, seconds, *reports)
    return caught.value


def test_a_usual_run_is_left_alone(clock):
    watched = Monitor(RULES, BASELINE, clock)
    watched.begin()
    for step in range(1, 300):
        clock.now += 0.1
        watched.tick()
        watched.see(point(step, 7.0 - step / 100))
        if step in BASELINE.marks:
            clock.now += 50
            watched.see_held_out(held_out(step, BASELINE.marks[step].loss - 0.1, 50.0))
    assert watched.seconds == pytest.approx(29.9)


def test_the_baselines_themselves_are_held_against_nothing(clock):
    watched = Monitor(RULES, Expectations(), clock)
    watched.begin()
    watched.see(point(1))
    watched.see_held_out(held_out(100, 99.0))


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite(clock, loss):
    end = ended(Monitor(RULES, BASELINE, clock), clock, point(1), point(2, loss))
    assert end.state is S.DIVERGED
    assert end.check.name == "not_finite"
    assert "step 2" in str(end)


def test_divergence_is_a_rise_of_the_smoothed_loss(clock):
    falling = [point(step, 7 - step / 20) for step in range(1, 61)]
    rising = [point(step, 4 + (step - 60) / 10) for step in range(61, 120)]
    end = ended(Monitor(RULES, BASELINE, clock), clock, *falling, *rising)
    assert end.state is S.DIVERGED
    assert end.check.name == "divergence"
    assert end.check.value > end.check.tolerance == 1.0
    spike = [point(61, 9.0), *(point(step, 4.0) for step in range(62, 100))]
    watched = Monitor(RULES, BASELINE, clock)
    for report in [*falling, *spike]:
        watched.see(report)


def test_slow_steps_are_told_from_pauses_and_single_stalls(clock):
    watched = Monitor(RULES, BASELINE, clock)
    watched.begin()
    for step in range(1, 60):
        clock.now += 30.0 if step == 30 else 0.1
        watched.see(point(step))
    end = ended(watched, clock, *(point(step) for step in range(60, 100)), seconds=1.5)
    assert end.state is S.SLOW
    assert end.check.name == "step_time"
    assert end.check.value == pytest.approx(15.0)


def test_compilation_has_its_own_limit(clock):
    watched = Monitor(RULES, BASELINE, clock)
    watched.tick()
    watched.begin()
    clock.now += 599
    watched.tick()
    clock.now += 2
    with pytest.raises(Ended) as caught:
        watched.tick()
    assert caught.value.state is S.SLOW
    assert caught.value.check.name == "compile_time"
    started = Monitor(RULES, BASELINE, clock)
    started.begin()
    started.see(point(1))
    clock.now += 10_000
    started.tick()


def test_no_progress_is_measured_by_what_the_baseline_has_learnt(clock):
    Monitor(RULES, BASELINE, clock).see_held_out(held_out(100, 5.1))
    end = ended(Monitor(RULES, without_pruning(), clock), clock, held_out(100, 6.9))
    assert end.state is S.PRUNED
    assert end.check.name == "progress"
    assert end.check.value == pytest.approx(0.05)
    assert end.check.tolerance == pytest.approx(0.1)


def without_pruning() -> Expectations:
    return Expectations(BASELINE.marks, BASELINE.seconds_per_step, BASELINE.chance)


def test_where_the_baseline_has_learnt_next_to_nothing_progress_is_not_judged(clock):
    early = Expectations(marks={10: Expected(6.9, 0.05)}, chance=7.0)
    later = Expectations(marks={10: Expected(6.0, 0.05)}, chance=7.0)
    Monitor(RULES, early, clock).see_held_out(held_out(10, 7.5))
    assert ended(Monitor(RULES, later, clock), clock, held_out(10, 7.5)).state is S.PRUNED


def test_pruning_counts_noise_floors_over_the_baseline_at_each_mark(clock):
    Monitor(RULES, BASELINE, clock).see_held_out(held_out(100, 5.14))
    end = ended(Monitor(RULES, BASELINE, clock), clock, held_out(100, 5.16))
    assert end.state is S.PRUNED
    assert end.check.name == "pruning"
    assert end.check.value == pytest.approx(3.2)
    Monitor(RULES, BASELINE, clock).see_held_out(held_out(200, 3.95))
    end = ended(Monitor(RULES, BASELINE, clock), clock, held_out(200, 3.97))
    assert end.check.value == pytest.approx(-1.5)
    assert end.check.tolerance == -2.0
