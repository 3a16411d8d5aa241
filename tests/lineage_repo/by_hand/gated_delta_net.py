"""Gated DeltaNet (arXiv 2412.06464): the delta rule on a memory that decays, with a gated output.

For each head, with q_t and k_t of length one and beta_t in (0, 1):

    q, k, v = silu(conv(W x))        causal depthwise convolution over time
    g_t = -exp(A) softplus(W_a x_t + b)        logarithm of the decay, as in Mamba-2
    S_t = e^{g_t} S_{t-1} + beta_t k_t (v_t - e^{g_t} S_{t-1}^T k_t)^T
    o_t = d_k^{-1/2} S_t^T q_t
    y_t = W_o (rms_norm(o_t) * silu(W_g x_t))

With `expand_k = expand_v = 1` it has the parameters of DeltaNet with `use_gate` (5 D^2 a layer) and one
more projection to the heads: the two differ by the decay alone, and by the gate where DeltaNet has none.
"""

import math
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from asi_lab.kernels import gated_delta_rule, rms_norm, short_convolution


class DeltaNet(nn.Module):
    """A token mixer `[B, L, D] -> [B, L, D]` with a decaying state of one `[d_k, d_v]` matrix a head.

    A head has `hidden_size * expand_k / num_heads` key and `hidden_size * expand_v / num_heads` value
    features. `d_model`, where given, is `hidden_size`. `allow_neg_eigval` takes beta from (0, 2)
    (arXiv 2411.12537). `mode` is "chunk" or, for comparison, "naive" (one token at a time).
    """

    def __init__(
        self,
        mode: Literal["chunk", "naive"] = "chunk",
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
        **kwargs: object,
    ):
        super().__init__()
        width = hidden_size if d_model is None else d_model
        key_width, value_width = round(width * expand_k), round(width * expand_v)
        if key_width % num_heads or value_width % num_heads:
            raise ValueError(f"num_heads = {num_heads} must divide the widths {key_width} and {value_width}")
        if mode not in ("chunk", "naive"):
            raise ValueError(f"mode must be 'chunk' or 'naive', got {mode!r}")
        if (qk_activation, qk_norm) != ("silu", "l2"):
            raise ValueError(f"qk_activation is 'silu', qk_norm 'l2'; got {qk_activation!r}, {qk_norm!r}")
        self.mode: Literal["chunk", "naive"] = mode
        self.num_heads = num_heads
        self.norm_eps = norm_eps
        self.beta_scale = 2.0 if allow_neg_eigval else 1.0
        self.widths = [key_width, key_width, value_width]

        self.qkv_proj = nn.Linear(width, sum(self.widths), bias=False)
        self.conv_weight = self.conv_bias = None
        if use_short_conv:
            bound = 1 / math.sqrt(conv_size)
            self.conv_weight = nn.Parameter(torch.empty(sum(self.widths), conv_size).uniform_(-bound, bound))
            self.conv_bias = nn.Parameter(torch.zeros(sum(self.widths))) if conv_bias else None
        self.beta_proj = nn.Linear(width, num_heads, bias=False) if use_beta else None
        self.decay_proj = nn.Linear(width, num_heads, bias=False)
        self.decay_log_rate = nn.Parameter(torch.empty(num_heads).uniform_(1, 16).log())
        step = torch.empty(num_heads).uniform_(math.log(1e-3), math.log(1e-1)).exp()
        self.decay_bias = nn.Parameter(step + torch.log(-torch.expm1(-step)))  # softplus(bias) = step
        self.gate_proj = nn.Linear(width, value_width, bias=False) if use_gate else None
        self.norm_weight = nn.Parameter(torch.ones(value_width // num_heads))
        self.out_proj = nn.Linear(value_width, width, bias=False)

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: object = None,
        use_cache: bool = False,
        output_attentions: bool = False,
        **kwargs: object,
    ) -> tuple[Tensor, None, object]:
        """Mix `hidden_states` `[B, L, D]` over time. Where `attention_mask` `[B, L]` is 0, nothing is read,
        written or returned. The whole sequence is one pass: `past_key_values` is handed back unchanged."""
        x = hidden_states
        mask = None if attention_mask is None else attention_mask[..., None].to(x.dtype)
        if mask is not None:
            x = x * mask

        qkv = self.qkv_proj(x)
        if self.conv_weight is None:
            qkv = functional.silu(qkv)
        else:
            qkv = short_convolution(qkv, self.conv_weight, self.conv_bias, activation="silu")
        parts = torch.split(qkv, self.widths, dim=-1)
        q, k, v = (rearrange(part, "b l (h d) -> b l h d", h=self.num_heads) for part in parts)

        if self.beta_proj is None:
            beta = x.new_ones(*x.shape[:2], self.num_heads)
        else:
            beta = self.beta_proj(x).sigmoid()
        beta = beta * self.beta_scale
        step = functional.softplus(self.decay_proj(x) + self.decay_bias)
        g = -self.decay_log_rate.exp() * step
        if mask is not None:
            beta, g = beta * mask, g * mask

        o, _ = gated_delta_rule(q, k, v, g, beta, use_qk_l2norm_in_kernel=True, implementation=self.mode)

        o = rearrange(rms_norm(o, self.norm_weight, self.norm_eps), "b l h d -> b l (h d)")
        if self.gate_proj is not None:
            o = o * functional.silu(self.gate_proj(x))
        y = self.out_proj(o)
        return y if mask is None else y * mask, None, past_key_values
