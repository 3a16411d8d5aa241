"""Who leads a lab, and how the pool sees it: by merit, which goes on where the judge's scale ends."""

from __future__ import annotations

import msgspec
import pytest

from asi_lab.lab import Store
from asi_lab.lab.config import from_preset
from asi_lab.lab.imports import best_of
from asi_lab.lab.summary import summarise
from asi_lab.records import Candidate, PoolEntry, merit
from asi_lab.researcher import pool
from asi_lab.scoring.archive import Archive, pool_entries

SETTINGS = from_preset("micro").baselines


def test_the_seed_counts_as_the_mean_of_its_runs_of_record(make_candidate):
    seed = msgspec.structs.replace(summarise(make_candidate(0)), fitness=0.48, fitness_noise=0.02)
    child = msgspec.structs.replace(summarise(make_candidate(1)), fitness=0.5, fitness_noise=0.03)
    unscored = msgspec.structs.replace(child, id=2, fitness=None)
    own = msgspec.structs.replace(child, id=3, fitness_spread=0.01, beyond=0.27)
    assert SETTINGS.seeds > 1
    assert pool_entries([seed, child, unscored, own], SETTINGS) == [
        PoolEntry(0, 0.48, 0.02, None, runs=SETTINGS.seeds),
        PoolEntry(1, 0.5, 0.03, 0, runs=1),
        PoolEntry(3, 0.51, 0.01, 0, runs=1),
    ]


@pytest.fixture
def saturated(tmp_path, make_candidate):
    """A store in which 2 has the higher fitness and 1 and 3 lie beyond the scale, and its archive."""

    def scored(number: int, fitness: float, beyond: float) -> Candidate:
        found = make_candidate(number, fitness=fitness)
        judgement = msgspec.structs.replace(found.score.judgement, mark=10.0, beyond=beyond)
        return msgspec.structs.replace(found, score=msgspec.structs.replace(found.score, judgement=judgement))

    with Store.open(tmp_path / "store") as store:
        store.put(make_candidate(0))
        for number, fitness, beyond in ((1, 0.981, 0.54), (2, 0.990, 0.0), (3, 0.980, 1.08)):
            store.put(scored(number, fitness, beyond))
        yield store, Archive(from_preset("micro"), store, baselines=None), scored


def test_a_point_beyond_counts_as_a_point_of_the_mark_would():
    """The mark's part of the fitness is a third of (mark - 1) / 9."""
    assert merit(0.98, 1.0) - merit(0.98, 0.0) == pytest.approx(1 / 9 / 3)
    assert merit(0.5, 0.0) == 0.5


def test_the_best_are_the_best_by_merit(saturated):
    store, archive, scored = saturated
    assert [c.id for c in archive.best(3)] == [3, 1, 2]
    assert store.best_id() == 3
    assert [c.score.fitness for c in archive.best(3)] == [0.980, 0.981, 0.990]  # as the paper has it
    assert not archive.is_led_by(scored(4, 0.995, 0.0))
    assert archive.is_led_by(scored(4, 0.985, 1.08))
    assert [p.name for p in best_of(store, 2, "lab")] == ["delta_net_3", "delta_net_1"]


def test_the_pool_ranks_by_merit(saturated):
    _, archive, _ = saturated
    entries = {entry.id: entry for entry in archive.entries()}
    assert entries[3].fitness == pytest.approx(0.980 + 0.04)
    search = from_preset("micro").search
    assert [e.id for e in pool.members(1, archive.entries(), search)][:3] == [3, 1, 2]


def test_a_summary_knows_the_merit_of_its_candidate(saturated):
    store, _, scored = saturated
    assert store.summary(1).merit == scored(1, 0.981, 0.54).score.merit
    assert store.summary(0).merit is None
