"""Steps in the space of genomes: mutation of a few genes, recombination of groups of genes."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence

import msgspec

from asi_lab.researcher.grammar.genome import (
    GENES,
    Genome,
    Value,
    broken_constraint,
    canonical,
    differences,
)
from asi_lab.researcher.grammar.step import inherited, steps

ATTEMPTS = 1000
"""Random steps tried before giving up; a step succeeds about every other time."""

GENE_COUNTS = {1: 5, 2: 3, 3: 2}
"""How many genes a mutation draws, with weights: small steps are more common."""

WEIGHTS = {
    **dict.fromkeys(GENES, 1),
    **dict.fromkeys(("rule", "decay", "beta", "feature_map"), 3),
    **dict.fromkeys(("short_fir", "long_fir", "residual", "gate"), 3),
    "router": 6,
}
"""How often a gene is drawn: those that add or replace a mechanism more often than its details."""

Hint = Mapping[str, Sequence[Value]]
"""Genes with the values that express a mechanism."""

GROUPS: dict[str, tuple[str, ...]] = {
    "memory": ("rule", "decay", "beta", "normaliser", "out_norm"),
    "features": ("feature_map", "qk_norm"),
    "convolutions": ("qk_conv", "v_conv", "v_activation"),
    "mixture": (
        *("short_fir", "long_fir", "copy", "router", "router_input"),
        *("floor", "floor_percent", "temperature", "entropy_permille", "residual"),
    ),
    "output gate": ("gate", "gate_scope"),
}
"""Genes that work together and are inherited together."""


def mutate(genome: Genome, rng: random.Random, avoid: Collection[Genome] = ()) -> Genome:
    """A valid canonical genome that differs from `genome` in one to three drawn genes.

    Where the drawn values need another mechanism (a router needs paths), one of the genes that can
    provide it is set as well. Genomes in `avoid` (canonical) are not returned.
    Raises ValueError when nothing new is found, which needs an `avoid` around the whole genome.
    """
    start = canonical(genome)
    for _ in range(ATTEMPTS):
        (count,) = rng.choices(list(GENE_COUNTS), list(GENE_COUNTS.values()))
        drawn = dict.fromkeys(rng.choices(list(WEIGHTS), list(WEIGHTS.values()), k=count))
        child = start
        for gene in drawn:
            child = _with(child, gene, rng.choice(_others(child, gene)))
        repaired = _repaired(child, set(drawn), rng)
        if repaired is not None and repaired != start and repaired not in avoid:
            return repaired
    raise ValueError(f"no new genome within {ATTEMPTS} mutations of {start}")


def lean(
    genome: Genome, hints: Sequence[Hint], rng: random.Random, avoid: Collection[Genome] = ()
) -> tuple[int, Genome] | None:
    """A valid canonical genome that expresses more of one of the hints, with the number of that hint: one of
    its genes takes a value that it names. None where the genome expresses them all, or no step is sound."""
    start = canonical(genome)
    for number in rng.sample(range(len(hints)), len(hints)):
        missing = [
            (gene, value)
            for gene, values in hints[number].items()
            if gene in GENES and getattr(start, gene) not in values
            for value in values
            if value in GENES[gene]
        ]
        for gene, value in rng.sample(missing, len(missing)):
            child = _repaired(_with(start, gene, value), {gene}, rng)
            if child is not None and child != start and child not in avoid and getattr(child, gene) == value:
                return number, child
    return None


def recombine(
    parent: Genome, other: Genome, rng: random.Random, avoid: Collection[Genome] = ()
) -> Genome | None:
    """The parent with one or more groups of genes taken from another genome.

    The child is valid and canonical, differs from both and has something of the other. None where no
    such child is found: the two are too much alike, or all that lies between them is in `avoid`.
    """
    parent, other = canonical(parent), canonical(other)
    groups = [group for group in GROUPS.values() if set(group) & set(differences(parent, other))]
    if len(groups) < 2:
        return None
    for _ in range(ATTEMPTS // 10):
        taken = [gene for group in rng.sample(groups, rng.randint(1, len(groups) - 1)) for gene in group]
        child = parent
        for gene in taken:
            child = _with(child, gene, getattr(other, gene))
        repaired = _repaired(child, set(taken), rng)
        if repaired is None or repaired in (parent, other, *avoid):
            continue
        if inherited(steps(parent, repaired), other):
            return repaired
    return None


def _repaired(genome: Genome, settled: set[str], rng: random.Random) -> Genome | None:
    """The genome made valid by changing genes that are not `settled`; None where that fails."""
    settled = set(settled)
    while broken := broken_constraint(genome):
        remedies = [
            (gene, value)
            for gene in broken.genes
            if gene not in settled
            for value in _others(genome, gene)
            if not broken.broken(canonical(_with(genome, gene, value)))
        ]
        if not remedies:
            return None
        gene, value = rng.choice(remedies)
        genome = _with(genome, gene, value)
        settled.add(gene)
    return canonical(genome)


def _others(genome: Genome, gene: str) -> list[Value]:
    return [value for value in GENES[gene] if value != getattr(genome, gene)]


def _with(genome: Genome, gene: str, value: Value) -> Genome:
    return msgspec.structs.replace(genome, **{gene: value})
