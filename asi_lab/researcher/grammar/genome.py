"""The genome: which mechanisms a layer is built from, and which combinations are sound.

A genome is a point in a finite product of small alphabets. `canonical` sets genes that have no
effect to their defaults, so that two equal canonical genomes are the same architecture, and
`is_valid` rejects combinations that are numerically unsound or say nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import product
from math import prod
from typing import Any, Literal, get_args, get_type_hints

import msgspec

Value = str | int | bool


class Genome(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The genes of one layer. The defaults are DeltaNet (arXiv:2406.06484).

    Convolution and FIR widths are in tokens, 0 means absent. `floor_percent` is the smallest share
    a path keeps, `entropy_permille` the weight of the router's entropy loss in thousandths.
    """

    rule: Literal["delta", "additive"] = "delta"
    decay: Literal["none", "fixed", "head", "data"] = "none"
    beta: Literal["none", "sigmoid", "double"] = "sigmoid"
    normaliser: bool = False
    feature_map: Literal["silu", "relu", "elu1", "identity", "softplus", "squared_relu"] = "silu"
    qk_norm: Literal["l2", "sum", "rms", "none"] = "l2"
    qk_conv: Literal[0, 3, 4, 8] = 4
    v_conv: Literal[0, 3, 4, 8] = 4
    v_activation: Literal["silu", "none"] = "silu"
    short_fir: Literal[0, 3, 5, 7] = 0
    long_fir: Literal[0, 15, 31, 63] = 0
    copy: bool = False
    router: Literal["none", "softmax", "sigmoid", "hierarchical"] = "none"
    router_input: Literal["head", "token", "content"] = "token"
    floor: Literal["none", "fixed", "learned"] = "none"
    floor_percent: Literal[1, 2, 5, 10] = 5
    temperature: Literal["fixed", "learned"] = "fixed"
    entropy_permille: Literal[0, 1, 10] = 0
    residual: Literal["none", "fixed", "head", "gate"] = "none"
    gate: Literal["none", "silu", "sigmoid"] = "none"
    gate_scope: Literal["head", "low_rank", "channel"] = "head"
    out_norm: Literal["head", "whole", "none"] = "head"

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths that make up the output, in the order the router sees them."""
        present = {"copy": self.copy, "short": self.short_fir > 0, "long": self.long_fir > 0}
        return (*(path for path, used in present.items() if used), "memory")


def _alphabet(annotation: Any) -> tuple[Value, ...]:
    return (False, True) if annotation is bool else get_args(annotation)


GENES: dict[str, tuple[Value, ...]] = {
    gene: _alphabet(annotation) for gene, annotation in get_type_hints(Genome).items()
}
"""The alphabet of every gene, in the order of the fields."""

POSITIVE_MAPS = ("elu1", "softplus")
"""Feature maps that are strictly positive, so that a sum of features can be divided by."""


@dataclass(frozen=True)
class Unused:
    """Genes that have no effect `when` the genes in `reads` say so."""

    genes: tuple[str, ...]
    reads: tuple[str, ...]
    when: Callable[[Genome], bool]


@dataclass(frozen=True)
class Constraint:
    """A combination that is not allowed, found by reading the genes in `reads`.

    Changing one of `genes` mends it. The rule is never among them: a small step into a corner of
    the genome must not drag a layer from the delta rule to additive writes.
    """

    genes: tuple[str, ...]
    reads: tuple[str, ...]
    reason: str
    broken: Callable[[Genome], bool]


_ROUTER_GENES = ("copy", "router_input", "floor", "temperature", "entropy_permille")

UNUSED: tuple[Unused, ...] = (
    Unused(("normaliser",), ("rule",), lambda g: g.rule == "delta"),
    Unused(_ROUTER_GENES, ("router",), lambda g: g.router == "none"),
    Unused(("temperature",), ("router_input",), lambda g: g.router_input == "head"),
    Unused(("floor_percent",), ("floor",), lambda g: g.floor == "none"),
    Unused(("gate_scope",), ("gate",), lambda g: g.gate == "none"),
)

CONSTRAINTS: tuple[Constraint, ...] = (
    Constraint(
        ("qk_norm",),
        ("qk_norm", "rule"),
        "the delta rule is stable only with keys of norm at most one (qk_norm l2 or sum)",
        lambda g: g.rule == "delta" and g.qk_norm not in ("l2", "sum"),
    ),
    Constraint(
        ("beta",),
        ("beta", "rule"),
        "the delta rule needs a write strength beta",
        lambda g: g.rule == "delta" and g.beta == "none",
    ),
    Constraint(
        ("beta",),
        ("beta", "rule"),
        "beta up to two means negative eigenvalues, which only the delta rule has",
        lambda g: g.rule == "additive" and g.beta == "double",
    ),
    Constraint(
        ("feature_map", "normaliser"),
        ("feature_map", "normaliser"),
        "the normaliser divides by a sum of features, so the feature map must be positive",
        lambda g: g.normaliser and g.feature_map not in POSITIVE_MAPS,
    ),
    Constraint(
        ("out_norm", "normaliser"),
        ("rule", "out_norm", "normaliser"),
        "the additive state grows without bound, so it needs a normaliser or an output norm",
        lambda g: g.rule == "additive" and g.out_norm == "none" and not g.normaliser,
    ),
    Constraint(
        ("feature_map", "qk_norm"),
        ("feature_map", "qk_norm"),
        "features can be normalised by their sum only when they are positive",
        lambda g: g.qk_norm == "sum" and g.feature_map not in POSITIVE_MAPS,
    ),
    Constraint(
        ("out_norm", "qk_norm"),
        ("qk_norm", "out_norm", "normaliser"),
        "sum-normalised features give a tiny read-out, so it needs a normaliser or an output norm",
        lambda g: g.qk_norm == "sum" and g.out_norm == "none" and not g.normaliser,
    ),
    Constraint(
        ("copy", "short_fir", "long_fir"),
        ("router", "copy", "short_fir", "long_fir"),
        "a router needs at least two paths",
        lambda g: g.router != "none" and len(g.paths) < 2,
    ),
    Constraint(
        ("copy", "router"),
        ("router", "copy"),
        "the first stage of a hierarchical router decides about the copy path, so there must be one",
        lambda g: g.router == "hierarchical" and not g.copy,
    ),
    Constraint(
        ("short_fir", "long_fir", "router"),
        ("router", "short_fir", "long_fir"),
        "the second stage of a hierarchical router needs two paths beside the copy",
        lambda g: g.router == "hierarchical" and not (g.short_fir or g.long_fir),
    ),
    Constraint(
        ("residual", "copy"),
        ("residual", "copy"),
        "a copy path and a learned residual would scale the values twice",
        lambda g: g.copy and g.residual in ("head", "gate"),
    ),
)


def seed_genome() -> Genome:
    """DeltaNet, the root of the lineage (arXiv:2406.06484)."""
    return Genome()


def gated_delta_net_genome() -> Genome:
    """Gated DeltaNet: DeltaNet with a data-dependent decay and an output gate (arXiv:2412.06464)."""
    return Genome(decay="data", gate="silu", gate_scope="channel")


def canonical(genome: Genome) -> Genome:
    """The same architecture with every gene that has no effect at its default. Idempotent."""
    for unused in UNUSED:
        if unused.when(genome):
            genome = msgspec.structs.replace(
                genome, **{gene: getattr(seed_genome(), gene) for gene in unused.genes}
            )
    return genome


def in_use(genome: Genome) -> frozenset[str]:
    """The genes that have an effect in this genome."""
    idle = {gene for unused in UNUSED if unused.when(canonical(genome)) for gene in unused.genes}
    return frozenset(GENES) - idle


def broken_constraint(genome: Genome) -> Constraint | None:
    """The first constraint that the genome breaks, judged in its canonical form."""
    form = canonical(genome)
    return next((constraint for constraint in CONSTRAINTS if constraint.broken(form)), None)


def is_valid(genome: Genome) -> str | None:
    """None for a sound genome, otherwise the reason why it is not."""
    broken = broken_constraint(genome)
    return broken.reason if broken else None


def differences(old: Genome, new: Genome) -> tuple[str, ...]:
    """The genes in which the canonical forms of two genomes differ, in field order."""
    old, new = canonical(old), canonical(new)
    return tuple(gene for gene in GENES if getattr(old, gene) != getattr(new, gene))


def independent_blocks() -> list[tuple[str, ...]]:
    """Groups of genes such that no rule of this module reads genes of two groups."""
    blocks = [{gene} for gene in GENES]
    links = [{*u.genes, *u.reads} for u in UNUSED] + [{*c.genes, *c.reads} for c in CONSTRAINTS]
    for link in links:
        touching = [block for block in blocks if block & link]
        blocks = [block for block in blocks if not block & link] + [set().union(*touching)]
    return [tuple(gene for gene in GENES if gene in block) for block in blocks]


def is_sound(genome: Genome) -> bool:
    """Whether a genome is valid and already in canonical form."""
    return canonical(genome) == genome and is_valid(genome) is None


@cache
def count_valid() -> int:
    """The exact number of distinct valid canonical genomes.

    Rules couple genes only within a block of `independent_blocks`, so the count is the product of
    the counts per block, each found by enumeration with the other genes at the seed's values.
    """

    def sound(block: tuple[str, ...]) -> int:
        alphabets = (GENES[gene] for gene in block)
        choices = (dict(zip(block, values, strict=True)) for values in product(*alphabets))
        return sum(is_sound(msgspec.structs.replace(seed_genome(), **genes)) for genes in choices)

    return prod(sound(block) for block in independent_blocks())
