"""Generations, boundaries and the two-level draw."""

from collections import Counter

import pytest

from asi_lab.records import PoolEntry
from asi_lab.researcher import pool
from asi_lab.settings import Search

MICRO = Search(pool=10, cold_start=3, update_every=2, parent_ranks=3)
PAPER = Search()


def test_generations_of_the_micro_preset():
    assert [pool.generation_of(i, MICRO) for i in range(1, 10)] == [0, 0, 0, 1, 1, 2, 2, 3, 3]
    assert [pool.boundary(k, MICRO) for k in range(4)] == [0, 3, 5, 7]


def test_generations_of_the_paper():
    assert [pool.generation_of(i, PAPER) for i in (1, 200, 201, 250, 251)] == [0, 0, 1, 1, 2]
    assert pool.boundary(1, PAPER) == 200
    assert pool.boundary(2, PAPER) == 250


@pytest.mark.parametrize("search", [MICRO, PAPER])
def test_a_draw_only_sees_candidates_before_its_boundary(search):
    for candidate in range(1, 400):
        assert pool.boundary(pool.generation_of(candidate, search), search) < candidate


def test_cold_start_draws_the_seed_and_records_that_references_are_missing():
    draw = pool.draw(2, [PoolEntry(0, 0.48)], MICRO, lab_seed=0)
    assert (draw.generation, draw.parent, draw.parent_rank) == (0, 0, 1)
    assert draw.references == ()
    assert draw.references_wanted == 4


def test_members_are_best_first_with_ties_to_the_older():
    entries = [PoolEntry(0, 0.5), PoolEntry(1, 0.6), PoolEntry(2, 0.6), PoolEntry(3, 0.4), PoolEntry(4, 0.9)]
    assert [e.id for e in pool.members(1, entries, MICRO)] == [1, 2, 0, 3]  # 4 is beyond the boundary


def test_parents_come_uniformly_from_the_first_ranks_and_references_from_the_rest():
    entries = [PoolEntry(i, 1 - i / 100) for i in range(60)]
    search = Search(cold_start=59, update_every=1_000_000)
    parents: Counter[int] = Counter()
    for candidate in range(60, 2060):
        draw = pool.draw(candidate, entries, search, lab_seed=1)
        parents[draw.parent] += 1
        assert draw.parent == draw.parent_rank - 1 < 10
        assert len(set(draw.references)) == 4
        assert all(10 <= reference < 50 for reference in draw.references)
    assert set(parents) == set(range(10))
    assert all(140 < count < 260 for count in parents.values())  # 200 each, 5 sigma


def test_a_draw_depends_on_seed_and_id_alone():
    entries = [PoolEntry(i, (i * 37 % 11) / 11) for i in range(12)]
    first = [pool.draw(i, entries, MICRO, 5) for i in range(4, 12)]
    assert first == [pool.draw(i, list(reversed(entries)), MICRO, 5) for i in range(4, 12)]
    assert first != [pool.draw(i, entries, MICRO, 6) for i in range(4, 12)]


def test_a_lucky_run_ranks_behind_what_its_relatives_bear_out():
    """Candidate 1 had the best run, but its children fall back; 2 and its children hold."""
    runs = [(0, 0.50, None), (1, 0.62, 0), (2, 0.60, 0)]
    runs += [(3, 0.50, 1), (4, 0.51, 1), (5, 0.60, 2), (6, 0.59, 2), (7, 0.61, 5), (8, 0.49, 3), (9, 0.50, 4)]
    entries = [PoolEntry(i, fitness, 0.05, parent, runs=3 if i == 0 else 1) for i, fitness, parent in runs]
    search = Search(pool=10, cold_start=9, update_every=1, parent_ranks=3)
    by_worth = [entry.id for entry in pool.members(1, entries, search)]
    assert by_worth.index(1) > by_worth.index(2)
    assert set(by_worth[:3]) <= {2, 5, 6, 7}
    rootless = [PoolEntry(entry.id, entry.fitness, entry.noise) for entry in entries]
    assert pool.members(1, rootless, search)[0].id == 1


def test_the_banned_are_not_drawn_but_still_known():
    entries = [PoolEntry(0, 0.5, 0.05, runs=3)]
    entries += [PoolEntry(i, 0.5 + i / 50, 0.05, i - 1) for i in range(1, 6)]
    search = Search(pool=10, cold_start=5, update_every=1, parent_ranks=3)
    free = [entry.id for entry in pool.members(1, entries, search)]
    assert [e.id for e in pool.members(1, entries, search, banned=(4,))] == [i for i in free if i != 4]
    for candidate in range(6, 40):
        drawn = pool.draw(candidate, entries, search, 0, banned=(4, 5))
        assert not {4, 5} & {drawn.parent, *drawn.references}


def test_a_pool_counts_on_no_relative_beyond_its_boundary():
    """A child beyond the boundary says nothing of its parent yet, or a resumed search would draw another."""
    entries = [PoolEntry(0, 0.5, 0.05), PoolEntry(1, 0.6, 0.05, 0), PoolEntry(2, 0.58, 0.05, 0)]
    entries += [PoolEntry(3, 0.57, 0.05, 1)]
    later = [PoolEntry(4, 0.2, 0.05, 1), PoolEntry(5, 0.2, 0.05, 1)]
    assert pool.members(1, [*entries, *later], MICRO) == pool.members(1, entries, MICRO)
