import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asi_lab.researcher.grammar.genome import (
    GENES,
    canonical,
    differences,
    gated_delta_net_genome,
    is_valid,
    seed_genome,
)
from asi_lab.researcher.grammar.mutate import GROUPS, mutate, recombine


def walk(seed: int, steps: int):
    rng, genome = random.Random(seed), seed_genome()
    for _ in range(steps):
        genome = mutate(genome, rng)
        yield genome


@given(st.integers(0, 2**32))
def test_mutations_stay_valid_canonical_and_new(seed):
    before = seed_genome()
    for genome in walk(seed, 5):
        assert is_valid(genome) is None
        assert canonical(genome) == genome
        assert genome != before
        before = genome


def test_mutation_reaches_every_value_of_every_gene():
    seen = {(gene, getattr(genome, gene)) for genome in walk(0, 3000) for gene in GENES}
    assert seen == {(gene, value) for gene, values in GENES.items() for value in values}


def test_mutation_steps_are_small():
    rng = random.Random(0)
    sizes = [len(differences(seed_genome(), mutate(seed_genome(), rng))) for _ in range(300)]
    assert max(sizes) <= 7
    assert sum(size <= 3 for size in sizes) > 240


def test_mutation_avoids_given_genomes():
    once = mutate(seed_genome(), random.Random(5))
    assert mutate(seed_genome(), random.Random(5), {once}) != once


def test_mutation_says_so_when_nothing_new_is_left():
    class Everything:
        def __contains__(self, genome: object) -> bool:
            return True

    with pytest.raises(ValueError, match="no new genome"):
        mutate(seed_genome(), random.Random(0), Everything())


@given(st.integers(0, 2**32))
def test_recombination_takes_its_genes_from_the_parents(seed):
    *_, other = walk(seed, 12)
    *_, parent = walk(seed + 1, 12)
    child = recombine(parent, other, random.Random(seed))
    if child is None:
        return
    assert is_valid(child) is None
    assert canonical(child) == child
    assert child not in (parent, other)
    inherited = [g for g in GENES if getattr(child, g) in (getattr(parent, g), getattr(other, g))]
    assert len(inherited) >= len(GENES) - 3


def test_recombination_of_like_parents_has_no_child():
    assert recombine(seed_genome(), seed_genome(), random.Random(0)) is None


def test_recombination_of_the_baselines_joins_whole_groups():
    children = {recombine(seed_genome(), gated_delta_net_genome(), random.Random(seed)) for seed in range(20)}
    assert {differences(seed_genome(), child) for child in children} == {("decay",), ("gate", "gate_scope")}


def test_groups_cover_every_gene_once():
    assert sorted(gene for group in GROUPS.values() for gene in group) == sorted(GENES)
