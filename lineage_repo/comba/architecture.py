"""comba: Comba (arXiv 2506.02475), the delta rule in a closed loop: feedback on writing and reading.

Queries, keys and values are those of DeltaNet: short convolution over 4 tokens, SiLU, and length one for
queries and keys. Every head keeps a matrix S [V, K] that maps keys to values, for token t:

    S_t = S_(t-1) (a_t I - f b_t k_t k_t^T) + b_t v_t k_t^T
    o_t = S_t (q_t - c k_t) / sqrt(K)
    y_t = W_o (RMSNorm(o_t) * sigmoid(W_g x_t))             the norm goes over each head's V values

Two things set it apart from Gated DeltaNet. What is erased, at the strength f b_t, is read from the memory
before that decays, and is less than what is written at b_t: the transition is a scalar plus a low rank. And
the query is corrected by the key that was just written. f = sigmoid(e) in (0, 1) and c are one learned
number per head. b_t is a sigmoid and a_t = exp(-exp(A) softplus(w x_t + d)), both per head and token;
exp(A) starts uniform in [1, 16], d with softplus(d) log-uniform in [1e-3, 1e-1], e at 1.

The paper starts c according to the size of the model; here it starts at 0.02, which its authors' code
recommends for small ones. That code norms the feedback's key f k_t once more in its kernel, which takes f
out of it, and corrects the query before it is normed; here it is as the paper has it.

Work and memory are linear in the length, and no position sees a later one.
"""

import math
from typing import Any

import torch
from torch import nn

from asi_lab.kernels import dplr_delta_rule, gated_rms_norm, qkv_convolution


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
        # Step sizes start log-uniform in [1e-3, 1e-1], rates uniform in [1, 16].
        step = torch.empty(num_heads).uniform_(math.log(1e-3), math.log(1e-1)).exp()
        self.decay_proj = nn.Linear(width, num_heads, bias=False)
        self.decay_bias = nn.Parameter(torch.log(torch.expm1(step)))
        self.decay_log_rate = nn.Parameter(torch.empty(num_heads).uniform_(1.0, 16.0).log())
        self.feedback = nn.Parameter(torch.ones(num_heads))
        self.correction = nn.Parameter(torch.full((num_heads,), 0.02))
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

        # Convolution, SiLU, heads: q, k [B, L, H, K] of length one, v [B, L, H, V].
        q, k, v = qkv_convolution(
            self.qkv_proj(x),
            self.conv_weight,
            self.conv_bias,
            num_heads=self.num_heads,
            key_dim=self.head_key_dim,
        )
        beta = torch.sigmoid(self.beta_proj(x))
        step = nn.functional.softplus(self.decay_proj(x) + self.decay_bias)
        g = -self.decay_log_rate.exp() * step
        if attention_mask is not None:  # padding leaves no trace in the memory
            k = k.masked_fill(padded[..., None], 0.0)
            v = v.masked_fill(padded[..., None], 0.0)
            g = g.masked_fill(padded, 0.0)

        # The memory is read at -f k as it was, and what is read goes where the value goes, at b k.
        write = beta[..., None] * k
        erase = -torch.sigmoid(self.feedback)[:, None] * k
        read = q - self.correction[:, None] * k
        o, _ = dplr_delta_rule(read, write, v, erase, write, g)

        gate = self.gate_proj(x).view_as(o)
        o = gated_rms_norm(o, gate, self.norm_weight, self.norm_eps, activation="sigmoid")
        y = self.out_proj(o.flatten(-2))
        if attention_mask is not None:
            y = y.masked_fill(padded, 0.0)
        return y, None, past_key_values
