import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asi_lab.researcher.grammar.genome import (
    CONSTRAINTS,
    GENES,
    UNUSED,
    Genome,
    broken_constraint,
    canonical,
    count_valid,
    differences,
    gated_delta_net_genome,
    in_use,
    independent_blocks,
    is_sound,
    is_valid,
    seed_genome,
)

any_genome = st.builds(Genome, **{gene: st.sampled_from(values) for gene, values in GENES.items()})


def test_there_are_at_least_ten_thousand_valid_genomes():
    assert count_valid() >= 10_000


def test_ten_thousand_genomes_by_plain_enumeration():
    """The same claim without the product over blocks."""
    varied = ("decay", "qk_conv", "v_conv", "short_fir", "long_fir", "residual", "gate", "feature_map")
    found = {seed_genome()}
    for gene in varied:
        found = {
            canonical(msgspec.structs.replace(genome, **{gene: value}))
            for genome in found
            for value in GENES[gene]
        }
    assert sum(is_valid(genome) is None for genome in found) >= 10_000


def test_every_gene_is_in_exactly_one_independent_block():
    genes = [gene for block in independent_blocks() for gene in block]
    assert sorted(genes) == sorted(GENES)


@given(any_genome, any_genome)
def test_soundness_is_decided_block_by_block(base, other):
    """What `count_valid` rests on: swapping blocks between sound genomes gives sound genomes."""
    if not (is_sound(base) and is_sound(other)):
        base, other = seed_genome(), gated_delta_net_genome()
    for block in independent_blocks():
        mixed = msgspec.structs.replace(base, **{gene: getattr(other, gene) for gene in block})
        assert is_sound(mixed)


@given(any_genome, st.sampled_from(range(len(CONSTRAINTS))), st.data())
def test_constraints_read_only_the_genes_they_declare(genome, index, data):
    constraint = CONSTRAINTS[index]
    other = data.draw(any_genome)
    kept = {gene: getattr(genome, gene) for gene in constraint.reads}
    assert constraint.broken(genome) == constraint.broken(msgspec.structs.replace(other, **kept))


@given(any_genome, st.sampled_from(range(len(UNUSED))), st.data())
def test_unused_rules_read_only_the_genes_they_declare(genome, index, data):
    unused = UNUSED[index]
    kept = {gene: getattr(genome, gene) for gene in unused.reads}
    assert unused.when(genome) == unused.when(msgspec.structs.replace(data.draw(any_genome), **kept))


@given(any_genome)
def test_canonical_is_idempotent_and_keeps_validity(genome):
    form = canonical(genome)
    assert canonical(form) == form
    assert is_valid(form) == is_valid(genome)
    assert differences(genome, form) == ()


@given(any_genome)
def test_canonical_changes_only_genes_without_effect(genome):
    form = canonical(genome)
    changed = {gene for gene in GENES if getattr(genome, gene) != getattr(form, gene)}
    assert changed.isdisjoint(in_use(genome))


@pytest.mark.parametrize(
    ("genes", "word"),
    [
        ({"qk_norm": "none"}, "norm at most one"),
        ({"beta": "none"}, "write strength"),
        ({"rule": "additive", "beta": "double"}, "negative eigenvalues"),
        ({"rule": "additive", "normaliser": True}, "must be positive"),
        ({"rule": "additive", "out_norm": "none"}, "without bound"),
        ({"qk_norm": "sum"}, "positive"),
        ({"qk_norm": "sum", "feature_map": "elu1", "out_norm": "none"}, "tiny read-out"),
        ({"router": "softmax"}, "two paths"),
        ({"router": "hierarchical", "short_fir": 3, "long_fir": 15}, "copy path"),
        ({"router": "hierarchical", "copy": True}, "two paths beside"),
        ({"router": "softmax", "copy": True, "residual": "gate"}, "twice"),
    ],
)
def test_unsound_combinations_are_refused_with_the_reason(genes, word):
    reason = is_valid(msgspec.structs.replace(seed_genome(), **genes))
    assert reason is not None
    assert word in reason


def test_all_constraints_are_reachable(genomes):
    broken = set()
    for first in genomes(200, 1):
        for gene, values in GENES.items():
            for value in values:
                found = broken_constraint(msgspec.structs.replace(first, **{gene: value}))
                broken |= {found.reason} if found else set()
    assert broken == {constraint.reason for constraint in CONSTRAINTS}


def test_baselines_are_valid_and_differ():
    assert is_valid(seed_genome()) is None
    assert is_valid(gated_delta_net_genome()) is None
    assert differences(seed_genome(), gated_delta_net_genome()) == ("decay", "gate", "gate_scope")


def test_unknown_fields_and_values_are_refused():
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"colour": "red"}, Genome)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"short_fir": 4}, Genome)
