"""rwkv7: the time mixing of RWKV-7 (arXiv 2503.14456), a delta rule that erases elsewhere than it writes.

Each of six projections reads the token mixed with the one before it, by learned shares m of its own (* is per
channel, x_0 = 0):

    x_t^p = x_t + m^p * (x_(t-1) - x_t)                     p in r, w, k, v, a, g
    r_t, k_t, v_t = W_r x_t^r, W_k x_t^k, W_v x_t^v
    w_t = exp(-e^(-1/2) sigmoid(d + W_2 tanh(W_1 x_t^w)))   decay, in (0.545, 1)
    a_t = sigmoid(c + A_2 A_1 x_t^a)                        how much is learned in context, in (0, 1)
    g_t = G_2 sigmoid(G_1 x_t^g)                            output gate

Every head keeps a matrix S [V, K] that maps keys to values:

    c_t = k_t * xi, scaled to length one                    the key that is erased
    n_t = k_t * (1 + (a_t - 1) * alpha)                     the key that is written
    S_t = S_(t-1) (diag(w_t) - c_t (a_t * c_t)^T) + v_t n_t^T
    o_t = LayerNorm(S_t r_t) + (r_t . (rho * n_t)) v_t      the norm goes over each head's V values
    y_t = W_o (g_t * o_t)

xi, alpha and rho are learned numbers per channel, and the norm has weights and biases, with an epsilon of
1e-5 V. The inner widths of w and a are 2.5 sqrt(D) and that of g is 5 sqrt(D), rounded to multiples of 32.

What is missing: the paper blends the values of later layers with those of the first one, but a layer of this
lab sees nothing of the others. Its authors' code lets starting values depend on the number of layers, which
is not known here either: every layer starts as their first one, with decays from slow to fast across the
channels. They start W_o, W_1, A_1 and G_1 at zero; here these start as linear layers do, so that every
parameter has a gradient from the first step on. RWKV-7's other half, channel mixing, is the lab's MLP.

Work and memory are linear in the length, and no position sees a later one.
"""

import math
from typing import Any

import torch
from torch import nn

from asi_lab.kernels import dplr_delta_rule, l2_norm

SLOWEST = math.exp(-0.5)  # -log of the strongest decay
SHIFTS = (0.2, 0.9, 0.7, 0.7, 0.9, 0.2)  # r, w, k, v, a, g: channel n of D starts at 1 - (n / D)^shift


class LowRank(nn.Module):
    """A projection by way of few numbers, with an activation between if it is named, plus a bias if given."""

    def __init__(self, width: int, channels: int, scale: float, start: torch.Tensor | None = None) -> None:
        super().__init__()
        inner = 32 * max(1, round(scale * math.sqrt(width) / 32))
        self.down = nn.Linear(width, inner, bias=False)
        self.up = nn.Linear(inner, channels, bias=False)
        nn.init.orthogonal_(self.up.weight, gain=0.1)
        self.bias = None if start is None else nn.Parameter(start)

    def forward(self, x: torch.Tensor, activation: str = "") -> torch.Tensor:
        """[B, L, D] -> [B, L, channels]."""
        inner = self.down(x)
        if activation:
            inner = {"tanh": torch.tanh, "sigmoid": torch.sigmoid}[activation](inner)
        y: torch.Tensor = self.up(inner)
        return y if self.bias is None else y + self.bias


class DeltaNet(nn.Module):
    """One token-mixing layer, [B, L, D] to [B, L, D].

    `d_model` wins over `hidden_size`; `expand_k` and `expand_v` scale the widths of keys and values.
    `mode`, `use_*`, `conv_*`, `allow_neg_eigval`, `qk_activation` and `qk_norm` belong to the common
    interface: this architecture fixes what they name, so they change nothing.
    """

    def __init__(
        self,
        mode: str = "chunk",
        d_model: int | None = None,
        hidden_size: int = 1024,
        expand_k: float = 1.0,
        expand_v: float = 1.0,
        num_heads: int = 4,
        use_beta: bool = True,
        use_gate: bool = True,
        use_short_conv: bool = False,
        conv_size: int = 4,
        conv_bias: bool = False,
        allow_neg_eigval: bool = True,
        layer_idx: int | None = None,
        qk_activation: str = "none",
        qk_norm: str = "l2",
        norm_eps: float = 1e-5,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        width = hidden_size if d_model is None else d_model
        key_dim, value_dim = int(width * expand_k), int(width * expand_v)
        if key_dim % num_heads or value_dim % num_heads:
            raise ValueError(f"widths {key_dim} and {value_dim} must divide by {num_heads} heads")
        self.num_heads = num_heads
        exponents = torch.tensor(SHIFTS)[:, None]
        self.shift = nn.Parameter(1.0 - (torch.arange(width) / width) ** exponents)
        self.r_proj = nn.Linear(width, key_dim, bias=False)
        self.k_proj = nn.Linear(width, key_dim, bias=False)
        self.v_proj = nn.Linear(width, value_dim, bias=False)
        for projection, size in ((self.r_proj, 0.5), (self.k_proj, 0.05), (self.v_proj, 0.5)):
            bound = size * width**-0.5
            nn.init.uniform_(projection.weight, -bound, bound)

        across = torch.linspace(-0.5, 0.5, key_dim)  # along all channels, and along those of a head
        within = torch.linspace(-1.0, 1.0, key_dim // num_heads).repeat(num_heads)
        within = within * within.abs()
        self.decay = LowRank(width, key_dim, 2.5, 6.0 * across - 2.5 + 2.5 * within)
        self.rate = LowRank(width, key_dim, 2.5, 0.4 * across - 0.19 + 0.3 * within)
        self.gate = LowRank(width, value_dim, 5.0)
        self.erase_scale = nn.Parameter(0.71 - 0.1 * across)  # xi
        self.write_share = nn.Parameter(torch.full((key_dim,), 1.02))  # alpha
        self.bonus = nn.Parameter(torch.full((key_dim,), -0.04))  # rho

        self.norm_eps = norm_eps
        self.norm_weight = nn.Parameter(torch.ones(value_dim))
        self.norm_bias = nn.Parameter(torch.zeros(value_dim))
        self.out_proj = nn.Linear(value_dim, width, bias=False)

    def heads(self, x: torch.Tensor) -> torch.Tensor:
        """[B, L, channels] -> [B, L, H, channels / H]."""
        return x.view(*x.shape[:2], self.num_heads, -1)

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
        x = hidden_states
        if attention_mask is not None:
            padded = (attention_mask == 0)[..., None]
            x = x.masked_fill(padded, 0.0)

        gap = nn.functional.pad(x[:, :-1], (0, 0, 1, 0)) - x
        x_r, x_w, x_k, x_v, x_a, x_g = (x + gap * share for share in self.shift.unbind())
        r, k, v = self.r_proj(x_r), self.k_proj(x_k), self.v_proj(x_v)
        g = -SLOWEST * torch.sigmoid(self.decay(x_w, "tanh"))
        rate = torch.sigmoid(self.rate(x_a))
        erase = l2_norm(self.heads(k * self.erase_scale))
        write = k * (1.0 + (rate - 1.0) * self.write_share)
        if attention_mask is not None:  # padding leaves no trace in the memory
            v = v.masked_fill(padded, 0.0)
            g = g.masked_fill(padded, 0.0)
            rate = rate.masked_fill(padded, 0.0)

        bonus = self.heads(r * self.bonus * write).sum(-1, keepdim=True) * self.heads(v)
        r, write, v, rate, g = (self.heads(t) for t in (r, write, v, rate, g))
        o, _ = dplr_delta_rule(r, write, v, -erase, rate * erase, g, scale=1.0)

        per_head = v.shape[-1:]
        o = nn.functional.layer_norm(o, per_head, eps=per_head[0] * self.norm_eps).flatten(-2)
        o = o * self.norm_weight + self.norm_bias + bonus.flatten(-2)
        y = self.out_proj(self.gate(x_g, "sigmoid") * o)
        if attention_mask is not None:
            y = y.masked_fill(padded, 0.0)
        return y, None, past_key_values
