"""mamba2: Mamba-2 (arXiv 2405.21060), structured state space duality with a scalar decay per head.

For token t with input u_t [D]:

    z_t, (x_t, B_t, C_t), r_t = W u_t                 split into gate, memory input, step
    x_t, B_t, C_t = SiLU(convolution over 4 tokens)   depthwise and causal, with a bias

x_t is cut into heads of P channels; B_t and C_t have N channels and are shared by all heads, as one
group. Every head keeps a matrix S [N, P] that maps B to x:

    dt_t = softplus(r_t + d)                          one step size per head and token
    S_t  = exp(-exp(A) dt_t) S_(t-1) + B_t (dt_t x_t)^T
    y_t  = S_t^T C_t + D x_t                          A, d and the skip D: one number per head
    out  = W_o RMSNorm(y_t * SiLU(z_t))               the norm goes over all heads together

So it is linear attention with a decay, with C as query, B as key and dt x as value, and without a
scale. A starts with exp(A) uniform in [1, 16], d with softplus(d) log-uniform in [1e-3, 1e-1], D at 1.

The paper leaves the sizes open, and its code fixes P = 64 and N = 128; here the lab's head count
decides: the inner width is 2 D (the paper's factor of expansion), P is that over the heads, and N is
D over the heads, so that N is the width of a key in the seed.

Work and memory are linear in the length, and no position sees a later one.
"""

import math
from typing import Any

import torch
from torch import nn

from asi_lab.kernels import gated_rms_norm, short_convolution, ssd


class CausalConvolution(nn.Module):
    """Depthwise convolution over time, then SiLU: each channel mixes its own last values."""

    def __init__(self, channels: int, width: int, bias: bool) -> None:
        super().__init__()
        bound = width**-0.5
        self.weight = nn.Parameter(torch.empty(channels, width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(channels).uniform_(-bound, bound)) if bias else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, L, channels] -> [B, L, channels]."""
        return short_convolution(x, self.weight, self.bias, "silu")


class StepSize(nn.Module):
    """From the projected step to dt, in (0, inf), and the rate of the decay, -exp(A)."""

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        step = torch.empty(num_heads).uniform_(math.log(1e-3), math.log(1e-1)).exp()
        self.bias = nn.Parameter(torch.log(torch.expm1(step)))
        self.log_rate = nn.Parameter(torch.empty(num_heads).uniform_(1.0, 16.0).log())

    def forward(self, raw: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """[B, L, H] -> the step sizes [B, L, H] and the rates [H]: their product is the log decay."""
        return nn.functional.softplus(raw + self.bias), -self.log_rate.exp()


class DeltaNet(nn.Module):
    """One token-mixing layer, [B, L, D] to [B, L, D].

    `d_model` wins over `hidden_size`; `expand_v` scales the inner width, `expand_k` the width of B and
    C, which is `d_model * expand_k / num_heads`; `conv_bias` gives the convolution its bias. `mode`,
    `use_*`, `conv_size`, `allow_neg_eigval`, `qk_activation` and `qk_norm` belong to the common
    interface: this architecture fixes what they name, so they change nothing.
    """

    def __init__(
        self,
        mode: str = "chunk",
        d_model: int | None = None,
        hidden_size: int = 1024,
        expand_k: float = 1.0,
        expand_v: float = 2.0,
        num_heads: int = 4,
        use_beta: bool = False,
        use_gate: bool = True,
        use_short_conv: bool = True,
        conv_size: int = 4,
        conv_bias: bool = True,
        allow_neg_eigval: bool = False,
        layer_idx: int | None = None,
        qk_activation: str = "silu",
        qk_norm: str = "none",
        norm_eps: float = 1e-5,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        width = hidden_size if d_model is None else d_model
        key_dim, inner = int(width * expand_k), int(width * expand_v)
        if key_dim % num_heads or inner % num_heads:
            raise ValueError(f"widths {key_dim} and {inner} must divide by {num_heads} heads")
        state = key_dim // num_heads
        self.num_heads = num_heads
        self.memory_widths = [inner, state, state]  # x, B, C
        self.widths = [inner, sum(self.memory_widths), num_heads]  # z, (x, B, C), step
        self.in_proj = nn.Linear(width, sum(self.widths), bias=False)
        self.conv = CausalConvolution(sum(self.memory_widths), 4, conv_bias)
        self.step = StepSize(num_heads)
        self.skip = nn.Parameter(torch.ones(num_heads))
        self.norm_eps = norm_eps
        self.norm_weight = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, width, bias=False)

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

        Returns the output, None, and `past_key_values` as given.
        """
        u = hidden_states
        if attention_mask is not None:
            padded = (attention_mask == 0)[..., None]
            u = u.masked_fill(padded, 0.0)

        z, memory, raw_step = self.in_proj(u).split(self.widths, dim=-1)
        x, b, c = self.conv(memory).split(self.memory_widths, dim=-1)
        x = x.unflatten(-1, (self.num_heads, -1))  # [B, L, H, P]
        b, c = b[..., None, :], c[..., None, :]  # one group: [B, L, 1, N]

        dt, rate = self.step(raw_step)
        if attention_mask is not None:  # in a step of length 0 nothing is written or forgotten
            dt = dt.masked_fill(padded, 0.0)
        y, _ = ssd(x, dt, rate, b, c, self.skip)

        y = y.flatten(-2)
        y = gated_rms_norm(y, z, self.norm_weight, self.norm_eps, norm_before_gate=False)
        y = self.out_proj(y)
        if attention_mask is not None:
            y = y.masked_fill(padded, 0.0)
        return y, None, past_key_values
