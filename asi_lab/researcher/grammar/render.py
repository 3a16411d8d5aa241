"""Renders a genome to the complete source of `architecture.py`.

The text is assembled from the parts of the mechanisms in use and comes out as `ruff format` would
leave it, at its default width as well as at 110 columns.
"""

from __future__ import annotations

from textwrap import fill, indent

from asi_lab.researcher.grammar import inputs, memory, output, paths
from asi_lab.researcher.grammar.genome import (
    Genome,
    canonical,
    gated_delta_net_genome,
    is_valid,
    seed_genome,
)
from asi_lab.researcher.grammar.part import Part, code

MODULE = '''"""{name}: {summary}.

Every head keeps a matrix S [V, K] that maps keys to values, for token t:

{equations}

Mechanisms, in the order of the computation:

{notes}

Work and memory are linear in the length, and no position sees a later one.
"""

{imports}


{helpers}class DeltaNet(nn.Module):
    """One token-mixing layer, [B, L, D] to [B, L, D].

    `d_model` wins over `hidden_size`; `expand_k` and `expand_v` scale the widths of
    keys and values. `mode`, `use_*`, `conv_size`, `allow_neg_eigval`, `qk_activation`
    and `qk_norm` belong to the common interface: this architecture fixes what they
    name, so they change nothing.
    """

    def __init__(
        self,
        mode: str = "chunk",
        d_model: int | None = None,
        hidden_size: int = 1024,
        expand_k: float = 1.0,
        expand_v: float = 1.0,
        num_heads: int = 4,
        use_beta: bool = {use_beta},
        use_gate: bool = {use_gate},
        use_short_conv: bool = {use_short_conv},
        conv_size: int = {conv_size},
        conv_bias: bool = False,
        allow_neg_eigval: bool = {allow_neg_eigval},
        layer_idx: int | None = None,
        qk_activation: str = "{qk_activation}",
        qk_norm: str = "{qk_norm}",
        norm_eps: float = 1e-5,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        width = hidden_size if d_model is None else d_model
        key_dim, value_dim = int(width * expand_k), int(width * expand_v)
        if key_dim % num_heads or value_dim % num_heads:
            widths = f"{{key_dim}} and {{value_dim}}"
            raise ValueError(f"widths {{widths}} must divide by {{num_heads}} heads")
        self.num_heads = num_heads
{init}

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool = False,
        output_attentions: bool = False,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, Any]:
        """Mixes `hidden_states`; `attention_mask` [B, L] is 0 where there is padding.

        Returns the output, {aux}, and `past_key_values` as given.
        """
        x = hidden_states
        if attention_mask is not None:
            padded = (attention_mask == 0)[..., None]
            x = x.masked_fill(padded, 0.0)

{forward}
'''


KNOWN = {
    canonical(seed_genome()): "DeltaNet (arXiv 2406.06484), the delta rule",
    canonical(gated_delta_net_genome()): "Gated DeltaNet (arXiv 2412.06464), the gated delta rule",
}
"""Genomes that are published architectures, with their source."""


def render(genome: Genome, name: str) -> str:
    """The source of `architecture.py` for a genome.

    Raises ValueError with the reason when the genome is not valid: a caller that wants to ask
    first has `is_valid`.
    """
    reason = is_valid(genome)
    if reason:
        raise ValueError(f"cannot render an invalid genome: {reason}")
    genome = canonical(genome)
    groups = _groups(genome)
    parts = [part for group in groups for part in group]
    forward = "\n\n".join(_joined(group, "forward") for group in groups if _joined(group, "forward"))
    init = "\n".join(part.init for part in parts if part.init)
    helpers = dict.fromkeys(helper for part in parts for helper in part.helpers)
    return MODULE.format(
        name=name,
        summary=KNOWN.get(genome) or memory.summary(genome),
        equations=indent(memory.equations(genome), "    "),
        notes="\n".join(_note(part.note) for part in parts if part.note),
        imports=_imports(parts, init + forward),
        helpers="".join(f"{helper}\n\n\n" for helper in helpers),
        init=indent(init, " " * 8),
        forward=indent(forward, " " * 8),
        aux="None" if not genome.entropy_permille else "the router's auxiliary loss",
        use_beta=genome.beta != "none",
        use_gate=genome.gate != "none",
        use_short_conv=bool(genome.qk_conv or genome.v_conv),
        conv_size=genome.qk_conv or genome.v_conv,
        allow_neg_eigval=genome.beta == "double",
        qk_activation=genome.feature_map,
        qk_norm=genome.qk_norm,
    )


def _groups(genome: Genome) -> list[list[Part]]:
    """The parts in the order of the computation; the groups become paragraphs of `forward`."""
    return [
        [inputs.projections(genome), inputs.features(genome)],
        [memory.beta(genome), memory.decay(genome), memory.padding(genome), memory.rule(genome)],
        [paths.filters(genome), paths.mixture(genome), paths.residual(genome)],
        [output.norm(genome), output.gate(genome), output.projection(genome)],
    ]


def _joined(group: list[Part], field: str) -> str:
    return "\n".join(text for part in group if (text := getattr(part, field)))


def _note(note: str) -> str:
    return fill(note, width=86, initial_indent="- ", subsequent_indent="  ")


def _imports(parts: list[Part], body: str) -> str:
    kernels = sorted({kernel for part in parts for kernel in part.kernels})
    standard = ["import math"] if "math." in body else []
    standard.append("from typing import Any")
    line = f"from asi_lab.kernels import {', '.join(kernels)}"
    if len(line) > 88:
        line = code("from asi_lab.kernels import (\n    {},\n)").format(",\n    ".join(kernels))
    return "\n".join([*standard, "", "import torch", "from torch import nn", "", line])
