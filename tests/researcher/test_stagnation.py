"""Steps against standstill: when they are taken, and what they make of a draw."""

import random

import pytest

from asi_lab.common.embedding import embed
from asi_lab.records import PoolEntry
from asi_lab.researcher import stagnation
from asi_lab.researcher.index import Index
from asi_lab.researcher.pool import draw
from asi_lab.settings import Search

SEARCH = Search(pool=10, cold_start=4, update_every=2, parent_ranks=4, references=2, patience=5)
NOISE = 0.01


def entries(fitness) -> list[PoolEntry]:
    return [PoolEntry(number, value, NOISE) for number, value in enumerate(fitness)]


def test_steps_are_climbed_while_nothing_improves_and_left_with_a_gain():
    flat = entries([0.5] * 30)
    at = {last: stagnation.standstill(last, flat, SEARCH).step for last in (3, 4, 8, 9, 13, 14, 19, 24, 29)}
    assert at == {3: 0, 4: 0, 8: 0, 9: 1, 13: 1, 14: 2, 19: 3, 24: 3, 29: 3}
    risen = [*flat[:16], *(PoolEntry(i, 0.6, NOISE) for i in range(16, 30))]
    assert stagnation.standstill(15, risen, SEARCH).step == 2
    found = stagnation.standstill(19, risen, SEARCH)
    assert found.step == 0
    assert found.rise == pytest.approx(0.1)
    assert stagnation.standstill(24, risen, SEARCH).step == 1


def test_a_rise_within_the_noise_of_one_run_is_none():
    for rise, step in ((0.9 * NOISE, 1), (1.1 * NOISE, 0)):
        known = [*entries([0.5] * 5), *(PoolEntry(i, 0.5 + rise, NOISE) for i in range(5, 10))]
        found = stagnation.standstill(9, known, SEARCH)
        assert (found.step, found.noise) == (step, NOISE)
        assert f"step {step} of 3" in found.words
        assert stagnation.WORDS[step] in found.words


def test_luck_alone_is_no_gain():
    """Best of ever more draws from one distribution rise by selection; that must not look like progress."""
    search, steps = Search(cold_start=20, parent_ranks=10, patience=50), []
    for seed in range(200):
        rng = random.Random(seed)
        known = entries(rng.gauss(0.5, NOISE) for _ in range(121))
        steps.append(stagnation.standstill(120, known, search).step)
    assert steps.count(2) >= 150


def test_before_there_are_enough_candidates_and_without_patience_nothing_happens():
    few = entries([0.5] * 3)
    assert stagnation.standstill(100, few, SEARCH) == stagnation.Standstill()
    never = Search(cold_start=4, parent_ranks=4, patience=0)
    assert stagnation.standstill(100, entries([0.5] * 101), never) == stagnation.Standstill()


def far(step: int, candidate_id: int = 40):
    known = entries([0.5 + i / 1000 for i in range(21)])
    drawn = draw(candidate_id, known, SEARCH, lab_seed=0)
    ids = [entry.id for entry in known]
    changed = stagnation.escalated(
        drawn, step, candidate_id, ids, lambda one, others: [abs(one - other) for other in others], 0
    )
    return drawn, changed


def test_without_a_step_the_draw_is_the_usual_one():
    drawn, changed = far(0)
    assert changed is drawn


@pytest.mark.parametrize("step", [1, 2])
def test_twice_the_references_come_from_the_unlike_half(step):
    drawn, changed = far(step)
    assert (changed.parent, changed.parent_rank, changed.step) == (drawn.parent, drawn.parent_rank, step)
    assert changed.references_wanted == 4
    others = sorted((n for n in range(1, 21) if n != drawn.parent), key=lambda n: abs(n - drawn.parent))
    assert len(set(changed.references)) == 4
    assert set(changed.references) <= set(others[:10])
    assert far(step) == (drawn, changed)  # a search that goes on draws the same


def test_at_the_last_step_half_of_the_parents_are_the_seed():
    fresh = [far(3, number)[1] for number in range(100, 200)]
    from_seed = [changed for changed in fresh if changed.parent == 0]
    assert 35 <= len(from_seed) <= 65
    assert {changed.parent_rank for changed in from_seed} == {0}
    assert all(0 not in changed.references for changed in fresh)


def test_likeness_is_the_cosine_of_the_motivations():
    import numpy as np

    texts = {1: "a gate for each head", 2: "a gate for every head", 3: "long convolution by powers"}
    index = Index(np.array([1, 2]), np.stack([embed(texts[1]), embed(texts[2])]))
    index.add(3, embed(texts[3]))
    near, other, nobody = index.likeness(1, [2, 3, 9])
    assert near == pytest.approx(float(embed(texts[1]) @ embed(texts[2])), abs=1e-6)
    assert near > 0.5 > other
    assert nobody == 0.0
    assert index.likeness(9, [1, 2]) == [0.0, 0.0]
