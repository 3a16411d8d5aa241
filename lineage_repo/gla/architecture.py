"""gla: Gated Linear Attention (arXiv 2312.06635), linear attention with a decay per key channel.

Queries, keys and values are plain projections. Every head keeps a matrix S [V, K] that maps keys to values,
for token t:

    a_t = sigmoid(W_2 W_1 x_t + c)^(1/16)                   K numbers per head, by way of 16 for all heads
    S_t = S_(t-1) diag(a_t) + v_t k_t^T
    o_t = S_t q_t / sqrt(K)
    y_t = W_o (RMSNorm(o_t) * SiLU(W_r x_t + e))            the norm goes over each head's V values

The 16th root keeps the decay near one: at a gate of 1/2 a channel still holds half after 16 tokens. Nothing
is corrected before it is written, so values under keys that are alike add up.

As in the paper keys are half as wide as values, which makes room for the output gate: a layer has as many
parameters as DeltaNet's but for the small ones. There is no convolution. The paper writes LayerNorm for the
norm of a head's output; its authors' code takes the root mean square alone, and so does this.

Work and memory are linear in the length, and no position sees a later one.
"""

from typing import Any

import torch
from torch import nn

from asi_lab.kernels import gated_rms_norm, linear_attention

RANK = 16  # of the decay's projection
ROOT = 16.0  # of the decay


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
        expand_k: float = 0.5,
        expand_v: float = 1.0,
        num_heads: int = 4,
        use_beta: bool = False,
        use_gate: bool = True,
        use_short_conv: bool = False,
        conv_size: int = 4,
        conv_bias: bool = False,
        allow_neg_eigval: bool = False,
        layer_idx: int | None = None,
        qk_activation: str = "none",
        qk_norm: str = "none",
        norm_eps: float = 1e-5,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        width = hidden_size if d_model is None else d_model
        key_dim, value_dim = int(width * expand_k), int(width * expand_v)
        if key_dim % num_heads or value_dim % num_heads:
            raise ValueError(f"widths {key_dim} and {value_dim} must divide by {num_heads} heads")
        self.num_heads = num_heads
        self.widths = [key_dim, key_dim, value_dim]
        self.qkv_proj = nn.Linear(width, sum(self.widths), bias=False)
        self.decay_down = nn.Linear(width, RANK, bias=False)
        self.decay_up = nn.Linear(RANK, key_dim)
        self.norm_eps = norm_eps
        self.norm_weight = nn.Parameter(torch.ones(value_dim // num_heads))
        self.gate_proj = nn.Linear(width, value_dim)
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

        q, k, v = self.qkv_proj(x).split(self.widths, dim=-1)
        g = nn.functional.logsigmoid(self.decay_up(self.decay_down(x))) / ROOT
        if attention_mask is not None:  # keys and values are 0 there already
            g = g.masked_fill(padded, 0.0)
        q, k, v, g = (t.unflatten(-1, (self.num_heads, -1)) for t in (q, k, v, g))
        o, _ = linear_attention(q, k, v, g)

        gate = self.gate_proj(x).view_as(o)
        o = gated_rms_norm(o, gate, self.norm_weight, self.norm_eps)
        y = self.out_proj(o.flatten(-2))
        if attention_mask is not None:
            y = y.masked_fill(padded, 0.0)
        return y, None, past_key_values
