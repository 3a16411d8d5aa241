"""Finished candidates as the pool sees them."""

from __future__ import annotations

import msgspec

from asi_lab.lab.config import from_preset
from asi_lab.lab.summary import summarise
from asi_lab.records import PoolEntry
from asi_lab.scoring.archive import pool_entries

SETTINGS = from_preset("micro").baselines


def test_the_seed_counts_as_the_mean_of_its_runs_of_record(make_candidate):
    seed = msgspec.structs.replace(summarise(make_candidate(0)), fitness=0.48, fitness_noise=0.02)
    child = msgspec.structs.replace(summarise(make_candidate(1)), fitness=0.5, fitness_noise=0.03)
    unscored = msgspec.structs.replace(child, id=2, fitness=None)
    own = msgspec.structs.replace(child, id=3, fitness_spread=0.01)
    assert SETTINGS.seeds > 1
    assert pool_entries([seed, child, unscored, own], SETTINGS) == [
        PoolEntry(0, 0.48, 0.02, None, runs=SETTINGS.seeds),
        PoolEntry(1, 0.5, 0.03, 0, runs=1),
        PoolEntry(3, 0.5, 0.01, 0, runs=1),
    ]
