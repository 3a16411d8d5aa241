"""From the read-out to the layer's output: normalisation, gate, projection."""

from __future__ import annotations

from asi_lab.researcher.grammar.genome import Genome
from asi_lab.researcher.grammar.part import Part, code, lines

NORM_FORWARD = {
    "none": "",
    "head": "o = rms_norm(o, self.norm_weight, self.norm_eps)",
    "whole": "o = rms_norm(o.flatten(-2), self.norm_weight, self.norm_eps).view_as(o)",
}

NORM_SIZE = {"head": "value_dim // num_heads", "whole": "value_dim"}

NORM_NOTES = {
    "none": "",
    "head": "output norm: RMS per head",
    "whole": "output norm: RMS over all heads together",
}

GATE_INIT = {
    "head": "self.gate_proj = nn.Linear(width, num_heads, bias=False)",
    "low_rank": code("""
        rank = value_dim // num_heads
        self.gate_down = nn.Linear(width, rank, bias=False)
        self.gate_up = nn.Linear(rank, value_dim, bias=False)
    """),
    "channel": "self.gate_proj = nn.Linear(width, value_dim, bias=False)",
}

GATE_INPUT = {
    "head": "self.gate_proj(x)[..., None]",
    "low_rank": "self.gate_up(self.gate_down(x)).view_as(o)",
    "channel": "self.gate_proj(x).view_as(o)",
}

GATE_FUNCTION = {"silu": "nn.functional.silu", "sigmoid": "torch.sigmoid"}

GATE_NAMES = {"silu": "SiLU", "sigmoid": "sigmoid"}

GATE_NOTES = {
    "head": "one value per head",
    "low_rank": "one value per channel through a low-rank map",
    "channel": "one value per channel",
}


def norm(genome: Genome) -> Part:
    """RMS normalisation of the joined paths. One operation computes it and a gate per channel."""
    used, gated = genome.out_norm != "none", _gated(genome)
    init = code(f"""
        self.norm_eps = norm_eps
        self.norm_weight = nn.Parameter(torch.ones({NORM_SIZE.get(genome.out_norm)}))
    """)
    return Part(
        init=init if used else "",
        forward="" if gated else NORM_FORWARD[genome.out_norm],
        note=NORM_NOTES[genome.out_norm],
        kernels=("rms_norm",) if used and not gated else (),
    )


def gate(genome: Genome) -> Part:
    """A gate on the output, computed from the input."""
    if genome.gate == "none":
        return Part()
    scope = genome.gate_scope
    note = f"output gate: {GATE_NAMES[genome.gate]}, {GATE_NOTES[scope]}"
    if not _gated(genome):
        forward = f"o = o * {GATE_FUNCTION[genome.gate]}({GATE_INPUT[scope]})"
        return Part(GATE_INIT[scope], forward, note)
    activation = "" if genome.gate == "silu" else f', "{genome.gate}"'
    forward = lines(
        f"gate = {GATE_INPUT[scope]}",
        f"o = gated_rms_norm(o, gate, self.norm_weight, self.norm_eps{activation})",
    )
    return Part(GATE_INIT[scope], forward, note, kernels=("gated_rms_norm",))


def _gated(genome: Genome) -> bool:
    """Whether `gated_rms_norm` computes output norm and gate."""
    return genome.out_norm == "head" and genome.gate != "none" and genome.gate_scope != "head"


def projection(genome: Genome) -> Part:
    """The output projection and the returned triple."""
    aux = "aux_loss" if genome.entropy_permille else "None"
    return Part(
        init="self.out_proj = nn.Linear(value_dim, width, bias=False)",
        forward=lines(
            "y = self.out_proj(o.flatten(-2))",
            "if attention_mask is not None:",
            "    y = y.masked_fill(padded, 0.0)",
            f"return y, {aux}, past_key_values",
        ),
    )
