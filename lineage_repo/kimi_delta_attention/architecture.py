"""kimi_delta_attention: Kimi Delta Attention (arXiv 2510.26692), the delta rule with a decay per channel.

Queries, keys and values are those of DeltaNet: short convolution over 4 tokens, SiLU, and length one for
queries and keys. Every head keeps a matrix S [V, K] that maps keys to values, for token t:

    g_t = -exp(A) softplus(W_2 W_1 x_t + d)                 K numbers per head, A one
    S_t = S_(t-1) diag(exp(g_t)) (I - b_t k_t k_t^T) + b_t v_t k_t^T
    o_t = S_t q_t / sqrt(K)
    y_t = W_o (RMSNorm(o_t) * sigmoid(U_2 U_1 x_t + c))     the norm goes over each head's V values

So every key channel of the memory fades at a rate of its own, which depends on the token; with the same g_t
in all channels of a head it is Gated DeltaNet's rule. b_t is a sigmoid, one number per head and token.
exp(A) starts uniform in [1, 16], d with softplus(d) log-uniform in [1e-3, 1e-1].

W_1 and U_1 lead to as many numbers as a head has values, as in the paper. Its model, Kimi Linear, has one
layer of full attention after three of these; that is no matter of this layer.

Work and memory are linear in the length, and no position sees a later one.
"""

import math
from typing import Any

import torch
from torch import nn

from asi_lab.kernels import gated_rms_norm, kda, qkv_convolution


class ChannelDecay(nn.Module):
    """The logarithm of the decay, per token, head and key channel."""

    def __init__(self, width: int, num_heads: int, key_dim: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, rank, bias=False)
        self.up = nn.Linear(rank, key_dim, bias=False)
        step = torch.empty(key_dim).uniform_(math.log(1e-3), math.log(1e-1)).exp()
        self.bias = nn.Parameter(torch.log(torch.expm1(step)))
        self.log_rate = nn.Parameter(torch.empty(num_heads).uniform_(1.0, 16.0).log())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [B, L, D] -> [B, L, H, K], at most 0."""
        step = nn.functional.softplus(self.up(self.down(x)) + self.bias)
        return -self.log_rate.exp()[:, None] * step.view(*x.shape[:2], self.log_rate.shape[0], -1)


class DeltaNet(nn.Module):
    """One token-mixing layer, [B, L, D] to [B, L, D].

    `d_model` wins over `hidden_size`; `expand_k` and `expand_v` scale the widths of keys and values.
    `mode`, `use_*`, `conv_size`, `allow_neg_eigval`, `qk_activation` and `qk_norm` belong to the common
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
        use_short_conv: bool = True,
        conv_size: int = 4,
        conv_bias: bool = False,
        allow_neg_eigval: bool = False,
        layer_idx: int | None = None,
        qk_activation: str = "silu",
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
        self.head_key_dim = key_dim // num_heads
        channels = 2 * key_dim + value_dim
        self.qkv_proj = nn.Linear(width, channels, bias=False)
        bound = 4**-0.5
        self.conv_weight = nn.Parameter(torch.empty(channels, 4).uniform_(-bound, bound))
        self.conv_bias = nn.Parameter(torch.zeros(channels)) if conv_bias else None
        self.beta_proj = nn.Linear(width, num_heads, bias=False)
        rank = value_dim // num_heads
        self.decay = ChannelDecay(width, num_heads, key_dim, rank)
        self.norm_eps = norm_eps
        self.norm_weight = nn.Parameter(torch.ones(rank))
        self.gate_down = nn.Linear(width, rank, bias=False)
        self.gate_up = nn.Linear(rank, value_dim)
        self.out_proj = nn.Linear(value_dim, width, bias=False)

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

        # Convolution, SiLU, heads: q, k [B, L, H, K] of length one, v [B, L, H, V].
        q, k, v = qkv_convolution(
            self.qkv_proj(x),
            self.conv_weight,
            self.conv_bias,
            num_heads=self.num_heads,
            key_dim=self.head_key_dim,
        )
        beta = torch.sigmoid(self.beta_proj(x))
        g = self.decay(x)
        if attention_mask is not None:  # padding leaves no trace in the memory
            k = k.masked_fill(padded[..., None], 0.0)
            v = v.masked_fill(padded[..., None], 0.0)
            g = g.masked_fill(padded[..., None], 0.0)
        o, _ = kda(q, k, v, g, beta)

        gate = self.gate_up(self.gate_down(x)).view_as(o)
        o = gated_rms_norm(o, gate, self.norm_weight, self.norm_eps, activation="sigmoid")
        y = self.out_proj(o.flatten(-2))
        if attention_mask is not None:
            y = y.masked_fill(padded, 0.0)
        return y, None, past_key_values
