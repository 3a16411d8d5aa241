"""gated_delta_product: Gated DeltaProduct (arXiv 2502.10297), two steps of the delta rule for each token.

Every token has one query, and two keys, values and strengths, each through a short convolution over 4 tokens
and SiLU, with queries and keys of length one. Every head keeps a matrix S [V, K] that maps keys to values:

    S_(t,0) = a_t S_(t-1)
    S_(t,j) = S_(t,j-1) (I - b_(t,j) k_(t,j) k_(t,j)^T) + b_(t,j) v_(t,j) k_(t,j)^T        j = 1, 2
    S_t     = S_(t,2),  o_t = S_t q_t / sqrt(K)
    y_t     = W_o (RMSNorm(o_t) * SiLU(W_g x_t))            the norm goes over each head's V values

b is twice a sigmoid, in (0, 2), so that each factor may reflect, and two of them rotate: this is what lets
one layer follow permutations that a single step cannot. a_t = exp(-exp(A) softplus(w x_t + d)) is the decay
of Gated DeltaNet, one number per head and token, once per token; exp(A) starts uniform in [1, 16], d with
softplus(d) log-uniform in [1e-3, 1e-1].

The number of steps, which the paper calls n_h and varies from 1 to 4, is 2 here. Two keys and two values make
7 D^2 parameters a layer, where DeltaNet has 4 and Gated DeltaNet 5.

It runs as the gated delta rule over two tokens for each, with the decay at the first and the query at the
second. Work and memory are linear in the length, and no position sees a later one.
"""

import math
from typing import Any

import torch
from torch import nn
from torch.nn.functional import pad

from asi_lab.kernels import gated_delta_rule, gated_rms_norm, l2_norm, short_convolution

STEPS = 2  # of the delta rule for each token


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
        allow_neg_eigval: bool = True,
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
        self.widths = [key_dim, STEPS * key_dim, STEPS * value_dim]
        channels = sum(self.widths)
        self.qkv_proj = nn.Linear(width, channels, bias=False)
        bound = 4**-0.5
        self.conv_weight = nn.Parameter(torch.empty(channels, 4).uniform_(-bound, bound))
        self.conv_bias = nn.Parameter(torch.zeros(channels)) if conv_bias else None
        self.beta_proj = nn.Linear(width, STEPS * num_heads, bias=False)
        # Step sizes start log-uniform in [1e-3, 1e-1], rates uniform in [1, 16].
        step = torch.empty(num_heads).uniform_(math.log(1e-3), math.log(1e-1)).exp()
        self.decay_proj = nn.Linear(width, num_heads, bias=False)
        self.decay_bias = nn.Parameter(torch.log(torch.expm1(step)))
        self.decay_log_rate = nn.Parameter(torch.empty(num_heads).uniform_(1.0, 16.0).log())
        self.norm_eps = norm_eps
        self.norm_weight = nn.Parameter(torch.ones(value_dim // num_heads))
        self.gate_proj = nn.Linear(width, value_dim, bias=False)
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

        qkv = short_convolution(self.qkv_proj(x), self.conv_weight, self.conv_bias, "silu")
        q, k, v = torch.split(qkv, self.widths, dim=-1)
        stepwise = (*x.shape[:2], STEPS, self.num_heads, -1)
        q = l2_norm(q.view(*x.shape[:2], self.num_heads, -1))  # [B, L, H, K]
        k = l2_norm(k.view(stepwise))  # [B, L, steps, H, K]
        v = v.view(stepwise)  # [B, L, steps, H, V]

        beta = 2.0 * torch.sigmoid(self.beta_proj(x)).view(stepwise[:-1])  # [B, L, steps, H]
        step = nn.functional.softplus(self.decay_proj(x) + self.decay_bias)
        g = -self.decay_log_rate.exp() * step
        if attention_mask is not None:  # padding leaves no trace in the memory
            k = k.masked_fill(padded[..., None, None], 0.0)
            v = v.masked_fill(padded[..., None, None], 0.0)
            g = g.masked_fill(padded, 0.0)

        # Steps take the place of tokens: the first one decays, the last one reads.
        first = pad(g[:, :, None], (0, 0, 0, STEPS - 1))
        last = pad(q[:, :, None], (0, 0, 0, 0, STEPS - 1, 0))
        last, k, v, first, beta = (t.flatten(1, 2) for t in (last, k, v, first, beta))
        o, _ = gated_delta_rule(last, k, v, first, beta)
        o = o[:, STEPS - 1 :: STEPS]

        gate = self.gate_proj(x).view_as(o)
        o = gated_rms_norm(o, gate, self.norm_weight, self.norm_eps)
        y = self.out_proj(o.flatten(-2))
        if attention_mask is not None:
            y = y.masked_fill(padded, 0.0)
        return y, None, past_key_values
