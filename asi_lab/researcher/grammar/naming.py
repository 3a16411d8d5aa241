"""Words for genomes: names of architectures, genes and values."""

from __future__ import annotations

from collections.abc import Callable, Collection

from asi_lab.researcher.grammar.genome import Genome, Value, canonical, differences, in_use, seed_genome

PREFIX = "delta_net"
MAX_NAME = 48
MAX_TAGS = 3

TAGS: dict[str, Callable[[Genome], str]] = {
    "rule": lambda g: "additive" if g.rule == "additive" else "delta",
    "decay": lambda g: {"fixed": "retention", "head": "head_decay", "data": "gated"}.get(g.decay, "no_decay"),
    "beta": lambda g: {"double": "neg_eig", "none": "no_beta"}.get(g.beta, "beta"),
    "feature_map": lambda g: {"identity": "linear", "squared_relu": "relu2"}.get(
        g.feature_map, g.feature_map
    ),
    "qk_norm": lambda g: f"{g.qk_norm}_keys" if g.qk_norm != "none" else "free_keys",
    "normaliser": lambda g: "normalised" if g.normaliser else "unnormalised",
    "short_fir": lambda g: f"fir{g.short_fir}" if g.short_fir else "no_short_fir",
    "long_fir": lambda g: f"fir{g.long_fir}" if g.long_fir else "no_long_fir",
    "router": lambda g: (
        {"hierarchical": "two_stage"}.get(g.router, g.router) + "_router" if g.router != "none" else "summed"
    ),
    "router_input": lambda g: f"{g.router_input}_routed",
    "copy": lambda g: "copy" if g.copy else "no_copy",
    "floor": lambda g: f"{g.floor}_floor" if g.floor != "none" else "no_floor",
    "floor_percent": lambda g: f"floor{g.floor_percent}",
    "temperature": lambda g: "tempered" if g.temperature == "learned" else "untempered",
    "entropy_permille": lambda g: f"entropy{g.entropy_permille}" if g.entropy_permille else "no_entropy",
    "residual": lambda g: f"{g.residual}_residual" if g.residual != "none" else "no_residual",
    "gate": lambda g: f"{g.gate}_gate" if g.gate != "none" else "no_gate",
    "gate_scope": lambda g: f"{g.gate_scope}_gated",
    "qk_conv": lambda g: f"qkconv{g.qk_conv}" if g.qk_conv else "no_qkconv",
    "v_conv": lambda g: f"vconv{g.v_conv}" if g.v_conv else "no_vconv",
    "v_activation": lambda g: "linear_v" if g.v_activation == "none" else "silu_v",
    "out_norm": lambda g: f"{g.out_norm}_norm" if g.out_norm != "none" else "no_norm",
}
"""A tag per gene, the most telling genes first."""

ORDER = {gene: rank for rank, gene in enumerate(TAGS)}
"""The rank of a gene by how much it tells."""

GENE_NAMES = {
    "rule": "state update",
    "decay": "decay",
    "beta": "write strength",
    "normaliser": "normaliser",
    "feature_map": "feature map",
    "qk_norm": "query and key norm",
    "qk_conv": "query and key convolution",
    "v_conv": "value convolution",
    "v_activation": "value activation",
    "short_fir": "short FIR",
    "long_fir": "long FIR",
    "copy": "copy path",
    "router": "router",
    "router_input": "router input",
    "floor": "router floor",
    "floor_percent": "floor share",
    "temperature": "router temperature",
    "entropy_permille": "entropy loss",
    "residual": "value residual",
    "gate": "output gate",
    "gate_scope": "gate scope",
    "out_norm": "output norm",
}

VALUE_NAMES: dict[tuple[str, Value], str] = {
    ("decay", "fixed"): "fixed per head",
    ("decay", "head"): "learned per head",
    ("decay", "data"): "data-dependent",
    ("beta", "none"): "one",
    ("beta", "double"): "sigmoid times two",
    ("feature_map", "elu1"): "ELU + 1",
    ("feature_map", "squared_relu"): "squared ReLU",
    ("feature_map", "silu"): "SiLU",
    ("feature_map", "relu"): "ReLU",
    ("v_activation", "silu"): "SiLU",
    ("qk_norm", "l2"): "L2",
    ("qk_norm", "rms"): "RMS",
    ("router_input", "content"): "token and path content",
    ("residual", "fixed"): "fixed 0.1",
    ("residual", "head"): "learned per head",
    ("residual", "gate"): "gated per token",
    ("gate", "silu"): "SiLU",
    ("gate_scope", "low_rank"): "low-rank channels",
    ("out_norm", "head"): "per head",
    ("out_norm", "whole"): "over all heads",
}


def architecture_name(genome: Genome, changed: Collection[str] = ()) -> str:
    """A name from up to three mechanisms in which the genome is not the seed.

    Mechanisms in `changed` come first. Matches `[a-z0-9_]{1,48}`; the seed itself is `delta_net`.
    """
    genome = canonical(genome)
    unlike_seed, used = differences(seed_genome(), genome), in_use(genome)
    kept: list[str] = []
    for gene in sorted(used & {*changed, *unlike_seed}, key=lambda gene: (gene not in changed, ORDER[gene])):
        if len(kept) < MAX_TAGS and len(_joined(genome, [*kept, gene])) <= MAX_NAME:
            kept.append(gene)
    return _joined(genome, kept)


def value_name(gene: str, value: Value) -> str:
    """A gene's value in words; nothing for a switch that is on, whose name says it all."""
    if value is True:
        return ""
    if gene == "floor_percent":
        return f"{value} %"
    if gene == "entropy_permille":
        return f"{int(value) / 1000:g}"
    return VALUE_NAMES.get((gene, value), str(value))


def _joined(genome: Genome, genes: list[str]) -> str:
    return "_".join([PREFIX, *(TAGS[gene](genome) for gene in TAGS if gene in genes)])
