"""mamba3: Mamba-3 (arXiv 2603.15569), a state that turns, and an input weighed at both ends of a step.

For token t with input u_t [D]:

    z_t, x_t, B_t, C_t, r_t, s_t, l_t, w_t = W u_t          gate, memory input, step, rate, share, turn

x_t is cut into heads of P channels. B_t and C_t have N channels and w_t has N / 4, and are shared by all
heads; r_t, s_t and l_t are one number per head. In every head, with * per channel:

    dt_t = softplus(r_t + d)                                step size
    a_t  = exp(-dt_t max(softplus(s_t), 1e-4))              decay
    l_t <- sigmoid(l_t)                                     share of the present in the step's input
    p_t  = p_(t-1) + dt_t pi tanh(w_t)                      N / 4 angles
    B_t <- R(p_t) (RMSNorm(B_t) + b),  C_t <- R(p_t) (RMSNorm(C_t) + c)
    S_t  = a_t S_(t-1) + (1 - l_t) dt_t a_t B_(t-1) x_(t-1)^T + l_t dt_t B_t x_t^T
    y_t  = S_t^T C_t + D x_t
    out  = W_o (y_t * SiLU(z_t))

S is [N, P], and everything before the first token 0. R(p) rotates the first N / 2 channels in pairs (0, 1),
(2, 3), ... by the angles p: since only differences of angles matter to C_t and B_i, this is a state with
complex decay, written with real numbers. The rule for S is the exponential-trapezoidal one; l = 1 makes it
Mamba-2's. With it and with the biases b and c, one number per head and channel, no convolution is needed,
and since B and C are normed, no norm of the output.

d starts with softplus(d) log-uniform in [1e-3, 1e-1]; b, c, D and the weights of the norms start at 1.

This is the form with one input and one output per head (SISO); the one with several is left out. The paper
has P = 64 and N = 128; here, as in this lab's Mamba-2, the inner width is 2 D, P is that over the lab's heads
and N is D over the heads.

It runs as linear attention with a decay per head whose keys and values are those of the token before: what a
token weighs at its own step and at the next one is written together, and its own step is added to what it
reads. Work and memory are linear in the length, and no position sees a later one.
"""

import math
from typing import Any

import torch
from torch import nn
from torch.nn.functional import pad, softplus

from asi_lab.kernels import linear_attention, rms_norm

LEAST_RATE = 1e-4


def previous(x: torch.Tensor) -> torch.Tensor:
    """[B, L, ...] -> of every token what the one before it had, 0 for the first one."""
    return pad(x[:, :-1], (0, 0) * (x.dim() - 2) + (1, 0))


def rotate(x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """x [B, L, H, N] with its first 2 R channels turned in pairs by `angles` [B, L, H, R]."""
    turned, rest = x.tensor_split([2 * angles.shape[-1]], dim=-1)
    one, other = turned.view(*angles.shape, 2).unbind(-1)
    cos, sin = angles.cos(), angles.sin()
    turned = torch.stack((one * cos - other * sin, one * sin + other * cos), dim=-1)
    return torch.cat((turned.flatten(-2).to(x.dtype), rest), dim=-1)


class StateVector(nn.Module):
    """B or C: normed, then moved by a bias of each head."""

    def __init__(self, num_heads: int, channels: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.norm_weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.ones(num_heads, channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, L, N] -> [B, L, H, N]."""
        return rms_norm(x, self.norm_weight, self.eps)[..., None, :] + self.bias


class DeltaNet(nn.Module):
    """One token-mixing layer, [B, L, D] to [B, L, D].

    `d_model` wins over `hidden_size`; `expand_v` scales the inner width, `expand_k` the width of B and
    C, which is `d_model * expand_k / num_heads`. `mode`, `use_*`, `conv_*`, `allow_neg_eigval`,
    `qk_activation` and `qk_norm` belong to the common interface: this architecture fixes what they name,
    so they change nothing.
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
        use_short_conv: bool = False,
        conv_size: int = 4,
        conv_bias: bool = False,
        allow_neg_eigval: bool = False,
        layer_idx: int | None = None,
        qk_activation: str = "none",
        qk_norm: str = "rms",
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
        self.widths = [inner, inner, state, state, *3 * [num_heads], state // 4]
        self.in_proj = nn.Linear(width, sum(self.widths), bias=False)
        step = torch.empty(num_heads).uniform_(math.log(1e-3), math.log(1e-1)).exp()
        self.step_bias = nn.Parameter(torch.log(torch.expm1(step)))
        self.key = StateVector(num_heads, state, norm_eps)  # B
        self.query = StateVector(num_heads, state, norm_eps)  # C
        self.skip = nn.Parameter(torch.ones(num_heads))
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

        z, x, b, c, step, rate, share, turn = self.in_proj(u).split(self.widths, dim=-1)
        x = x.unflatten(-1, (self.num_heads, -1))  # [B, L, H, P]
        step = softplus(step + self.step_bias)  # [B, L, H], as are rate, share and g
        if attention_mask is not None:  # in a step of length 0 nothing is written, forgotten or turned
            step = step.masked_fill(padded, 0.0)
        g = -step * softplus(rate).clamp(min=LEAST_RATE)
        share = torch.sigmoid(share)

        angles = step[..., None] * (math.pi * torch.tanh(turn))[..., None, :]
        exact = torch.promote_types(angles.dtype, torch.float32)  # a long sum
        angles = angles.cumsum(dim=1, dtype=exact)  # [B, L, H, N / 4]
        b, c = rotate(self.key(b), angles), rotate(self.query(c), angles)

        now = share * step
        weight = g.exp() * (previous(now) + (1.0 - share) * step)
        o, _ = linear_attention(c, previous(b), (weight[..., None] * previous(x)).to(x.dtype), g, scale=1.0)
        direct = now * (b * c).sum(-1) + self.skip
        o = o + direct[..., None] * x

        y = self.out_proj(o.flatten(-2) * nn.functional.silu(z))
        if attention_mask is not None:
            y = y.masked_fill(padded, 0.0)
        return y, None, past_key_values
