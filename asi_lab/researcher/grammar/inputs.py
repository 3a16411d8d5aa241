"""Queries, keys and values: projections, short convolutions, feature map, normalisation."""

from __future__ import annotations

from asi_lab.researcher.grammar.genome import Genome
from asi_lab.researcher.grammar.part import Part, code, lines

CONVOLUTION = code('''
    class CausalConvolution(nn.Module):
        """Depthwise convolution over time: each channel mixes its own last values."""

        def __init__(self, channels: int, width: int, bias: bool, silu: bool) -> None:
            super().__init__()
            bound = width**-0.5
            self.weight = nn.Parameter(torch.empty(channels, width).uniform_(-bound, bound))
            self.bias = nn.Parameter(torch.zeros(channels)) if bias else None
            self.silu = silu

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.silu:
                return short_convolution(x, self.weight, self.bias, "silu")
            return short_convolution(x, self.weight, self.bias)
''')

FUSED_INIT = """
    self.head_key_dim = key_dim // num_heads
    channels = 2 * key_dim + value_dim
    self.qkv_proj = nn.Linear(width, channels, bias=False)
    bound = {width}**-0.5
    weight = torch.empty(channels, {width}).uniform_(-bound, bound)
    self.conv_weight = nn.Parameter(weight)
    self.conv_bias = nn.Parameter(torch.zeros(channels)) if conv_bias else None
"""

FUSED_FORWARD = """
    # {steps}, heads: q, k [B, L, H, K] of length one, v [B, L, H, V].
    q, k, v = qkv_convolution(
        self.qkv_proj(x),
        self.conv_weight,
        self.conv_bias,
        num_heads=self.num_heads,
        key_dim=self.head_key_dim,{activation}
    )
"""

FEATURE_MAPS = {
    "silu": "nn.functional.silu({})",
    "relu": "torch.relu({})",
    "elu1": "nn.functional.elu({}) + 1.0",
    "softplus": "nn.functional.softplus({})",
    "squared_relu": "torch.relu({}).square()",
}

FEATURE_NAMES = {
    "silu": "SiLU",
    "relu": "ReLU",
    "elu1": "ELU + 1",
    "identity": "no feature map",
    "softplus": "softplus",
    "squared_relu": "squared ReLU",
}

NORMS = {
    "l2": "l2_norm({})",
    "sum": "{} / ({}.sum(dim=-1, keepdim=True) + 1e-6)",
    "rms": "rms_norm({})",
}

NORM_NAMES = {"l2": "L2 norm", "sum": "divided by their sum", "rms": "RMS norm", "none": "no norm"}


def projections(genome: Genome) -> Part:
    """Linear maps to q, k, v in one product, and their short convolutions.

    One convolution serves all three where width and activation agree. SiLU is fused into it, and so is
    the norm of queries and keys where one operation computes it all.
    """
    qk, v = genome.qk_conv, genome.v_conv
    silu_qk, silu_v = genome.feature_map == "silu", genome.v_activation == "silu"
    note = f"values: {_convolved(v)}, {'SiLU' if silu_v else 'linear'}"
    if _fused(genome):
        steps = "Convolution, SiLU" if silu_v else "Convolution"
        activation = "" if silu_v else "\n        activation=None,"
        return Part(
            init=code(FUSED_INIT.format(width=v)),
            forward=code(FUSED_FORWARD.format(steps=steps, activation=activation)),
            note=note,
            kernels=("qkv_convolution",),
        )
    if qk == v and (not qk or silu_qk == silu_v):
        widths = "[key_dim, key_dim, value_dim]"
        convolutions = _convolution("qkv", "sum(self.widths)", qk, silu_v)
        split = f"q, k, v = {_convolve('qkv', qk, 'self.qkv_proj(x)')}.split(self.widths, dim=-1)"
    else:
        widths = "[2 * key_dim, value_dim]"
        convolutions = lines(
            _convolution("qk", "2 * key_dim", qk, silu_qk), _convolution("v", "value_dim", v, silu_v)
        )
        split = lines(
            "qk, v = self.qkv_proj(x).split(self.widths, dim=-1)",
            f"q, k = {_convolve('qk', qk, 'qk')}.chunk(2, dim=-1)",
            f"v = {_convolve('v', v, 'v')}" if v else "",
        )
    return Part(
        init=lines(
            f"self.widths = {widths}",
            "self.qkv_proj = nn.Linear(width, sum(self.widths), bias=False)",
            convolutions,
        ),
        forward=lines(
            split,
            "q, k, v = (part.unflatten(-1, (self.num_heads, -1)) for part in (q, k, v))",
            "v = nn.functional.silu(v)" if silu_v and not v else "",
        ),
        note=note,
        kernels=("short_convolution",) if qk or v else (),
        helpers=(CONVOLUTION,) if qk or v else (),
    )


def _fused(genome: Genome) -> bool:
    """Whether `qkv_convolution` leads from the projections to q, k and v: one convolution, SiLU for all
    or for none, and queries and keys of length one."""
    one = 0 < genome.qk_conv == genome.v_conv
    activations = (genome.feature_map, genome.v_activation)
    return one and genome.qk_norm == "l2" and activations in (("silu", "silu"), ("identity", "none"))


def _convolution(stream: str, channels: str, width: int, silu: bool) -> str:
    if not width:
        return ""
    return f"self.{stream}_conv = CausalConvolution({channels}, {width}, conv_bias, silu={silu})"


def _convolve(stream: str, width: int, argument: str) -> str:
    return f"self.{stream}_conv({argument})" if width else argument


def features(genome: Genome) -> Part:
    """Feature map and normalisation of queries and keys."""
    feature, norm = genome.feature_map, genome.qk_norm
    note = f"queries, keys: {_convolved(genome.qk_conv)}, {FEATURE_NAMES[feature]}, {NORM_NAMES[norm]}"
    if _fused(genome):
        return Part(note=note)
    with_silu = feature == "silu" and genome.qk_conv > 0
    mapped = "" if with_silu or feature == "identity" else _both(FEATURE_MAPS[feature])
    return Part(
        forward=lines(mapped, _both(NORMS[norm]) if norm != "none" else ""),
        note=note,
        kernels={"l2": ("l2_norm",), "rms": ("rms_norm",)}.get(norm, ()),
    )


def _both(template: str) -> str:
    """The template applied to q and k: one assignment each, which reads well at any length."""
    return lines(*(f"{stream} = {template.replace('{}', stream)}" for stream in ("q", "k")))


def _convolved(width: int) -> str:
    return f"short convolution over {width} tokens" if width else "no convolution"
