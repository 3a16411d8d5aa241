"""Ranks, the test against luck, and figures that are not finite."""

from __future__ import annotations

import json
import math
import random

import msgspec
import pytest

from asi_lab.lab.config import from_preset
from asi_lab.lab.summary import summarise
from asi_lab.records import BaselineRun
from asi_lab.scoring.baselines import ARCHITECTURES, Baselines
from asi_lab.view import leaderboard, tables

SETTINGS = from_preset("micro")


def runs(make_candidate, losses, others=None):
    """Baseline runs of both architectures with these losses; those of the second may differ."""
    evidence = make_candidate(1).evidence
    return [
        BaselineRun(
            name,
            index,
            msgspec.structs.replace(
                evidence, evaluation=msgspec.structs.replace(evidence.evaluation, loss=loss)
            ),
        )
        for name, group in zip(ARCHITECTURES, (losses, others or losses), strict=True)
        for index, loss in enumerate(group)
    ]


@pytest.fixture
def baselines(make_candidate) -> Baselines:
    return Baselines(SETTINGS, runs(make_candidate, [4.00, 4.01, 4.02]))


def test_baselines_are_missing_until_all_are_measured(make_candidate):
    assert Baselines.measured(SETTINGS, runs(make_candidate, [4.0, 4.1])) is None
    assert Baselines.measured(SETTINGS, runs(make_candidate, [4.0, 4.1, 4.2])) is not None


def test_a_win_needs_more_than_the_margin_of_the_bar(baselines):
    margin = baselines.margin(baselines.bar)
    assert leaderboard.standing([4.01 - margin * 1.01], baselines).bar.is_better
    assert not leaderboard.standing([4.01 - margin * 0.99], baselines).bar.is_better
    found = leaderboard.standing([4.01 + 0.02], baselines)
    assert found.gain == pytest.approx(-0.02 / 4.01)
    assert found.bar.in_sd == pytest.approx(-0.02 / found.bar.sd)
    assert found.beats == ()


def test_wins_are_counted_against_each_reference_the_bar_first(make_candidate):
    known = Baselines(SETTINGS, runs(make_candidate, [4.00, 4.01, 4.02], [3.5, 3.51, 3.52]))
    losses = {1: 3.2, 2: 3.8, 3: 4.5}
    rows = [
        msgspec.structs.replace(summarise(make_candidate(number)), loss=loss)
        for number, loss in losses.items()
    ]
    found = leaderboard.board(known, rows)
    assert found.bar == "gated_delta_net"
    assert found.beating == {"gated_delta_net": 1, "delta_net": 2}
    assert [row.name for row in found.baselines] == ["gated_delta_net", "delta_net"]
    assert {row.id: row.beats for row in found.candidates} == {
        1: ("gated_delta_net", "delta_net"),
        2: ("delta_net",),
        3: (),
    }
    assert found.expected_by_luck == pytest.approx(0.15)
    words = " ".join(tables.wins(found).split())
    assert words == (
        "1 of 3 scored candidates beat Gated DeltaNet, the bar, beyond noise (*), 2 DeltaNet; "
        "0.2 would beat one by luck alone."
    )


def test_luck_alone_wins_as_often_as_expected(make_candidate):
    """Candidates that are no better than the baseline: about 5 % of them pass, over many labs."""
    rng, passed, count = random.Random(0), 0, 500
    for _ in range(count):
        first, second = ([rng.gauss(4.0, 0.01) for _ in range(3)] for _ in ARCHITECTURES)
        lab = Baselines(SETTINGS, runs(make_candidate, first, second))
        passed += leaderboard.standing([rng.gauss(4.0, 0.01)], lab).bar.is_better
    assert 0.02 < passed / count < 0.09


def test_the_seed_stands_among_the_baselines_only(baselines, make_candidate):
    rows = [summarise(make_candidate(number)) for number in (0, 1, 2, 3)]
    found = leaderboard.board(baselines, rows)
    assert [row.id for row in found.candidates] == [3, 2, 1]
    assert [(row.name, row.rank, row.judge) for row in found.baselines] == [
        ("delta_net", None, 5.0),
        ("gated_delta_net", None, 5.0),  # here no better
    ]
    assert found.baselines[0].gain == 0.0


def test_equal_fitness_ranks_the_older_first(baselines, make_candidate):
    rows = [summarise(make_candidate(number, fitness=0.5)) for number in (2, 1)]
    assert [row.id for row in leaderboard.board(baselines, rows).candidates] == [1, 2]


def test_the_value_in_the_pool_stands_beside_the_fitness(baselines, make_candidate):
    """A child that ran well under a parent that ran badly is worth less than its run, and the parent more."""
    rows = [summarise(make_candidate(n, parent=n - 1, fitness=f)) for n, f in ((1, 0.45), (2, 0.6))]
    best, worst = leaderboard.board(baselines, rows).candidates
    assert (best.id, best.fitness, worst.id, worst.fitness) == (2, 0.6, 1, 0.45)
    assert worst.fitness < worst.pool.mean < best.pool.mean < best.fitness
    assert 0 < best.pool.sd < rows[1].fitness_noise
    assert all(row.pool is None for row in leaderboard.board(baselines, rows).baselines)


def test_without_any_spread_no_units_of_noise_are_claimed(make_candidate):
    flat = Baselines(SETTINGS, runs(make_candidate, [4.0, 4.0, 4.0]))
    assert leaderboard.standing([3.9], flat).bar.in_sd is None


def test_json_holds_no_figure_that_json_has_not():
    text = tables.to_json({"a": math.nan, "b": [math.inf, 1.5], "c": (-math.inf,), "d": "nan"})
    assert json.loads(text) == {"a": None, "b": [None, 1.5], "c": [None], "d": "nan"}


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0:00"), (9.6, "0:10"), (750, "12:30"), (11220, "3:07:00")]
)
def test_durations(seconds, shown):
    assert tables.duration(seconds) == shown
