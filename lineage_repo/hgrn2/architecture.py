"""hgrn2: HGRN2 (arXiv 2404.07904), a gated recurrence whose state is a matrix, with the forget gate as key.

Every head keeps a matrix S [V, K], for token t (* is per channel):

    f_t = l + (1 - l) * sigmoid(W_f x_t)                    forget gate, at least l, K numbers per head
    S_t = S_(t-1) diag(f_t) + (W_v x_t) (1 - f_t)^T
    o_t = S_t SiLU(W_q x_t)
    y_t = W_o RMSNorm(o_t)                                  the norm goes over all heads together

So it is linear attention with a decay per channel, in which what a channel does not forget it does not
write either: each row of S is a moving average of values. There is no output gate and no convolution.

The bounds l are what makes the layers a hierarchy: lower ones look near, higher ones far. The paper has
l = 0 in the first layer, and in the others a sum over the layers below of a softmax over all layers, learned
for each channel; with its start that is i / n in layer i of n. A layer of this lab knows neither n nor the
others, so here l = sigmoid(c) is learned for each channel by each layer for itself, and starts at
i / (i + 1): in the second layer of two, and in the last of any number, where the paper's starts, between
them higher. That it grows with the layer is where it starts, and not enforced. A layer without a
number is a first layer.

The paper makes K 128; here K = V is the width over the lab's number of heads.

Work and memory are linear in the length, and no position sees a later one.
"""

import math
from typing import Any

import torch
from torch import nn

from asi_lab.kernels import linear_attention, rms_norm


class ForgetGate(nn.Module):
    """log f and 1 - f from the gate's logits; f is bounded from below but in the first layer."""

    def __init__(self, channels: int, layer: int) -> None:
        super().__init__()
        # sigmoid(log i) is i / (i + 1).
        self.bound = nn.Parameter(torch.full((channels,), math.log(layer))) if layer > 0 else None

    def forward(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """[B, L, H K] -> the same shape twice."""
        log_gate, write = nn.functional.logsigmoid(logits), torch.sigmoid(-logits)
        if self.bound is None:
            return log_gate, write
        least, rest = nn.functional.logsigmoid(self.bound), nn.functional.logsigmoid(-self.bound)
        return torch.logaddexp(least, rest + log_gate), torch.sigmoid(-self.bound) * write


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
        use_beta: bool = False,
        use_gate: bool = False,
        use_short_conv: bool = False,
        conv_size: int = 4,
        conv_bias: bool = False,
        allow_neg_eigval: bool = False,
        layer_idx: int | None = None,
        qk_activation: str = "silu",
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
        self.qfv_proj = nn.Linear(width, sum(self.widths), bias=False)
        self.forget = ForgetGate(key_dim, layer_idx or 0)
        self.norm_eps = norm_eps
        self.norm_weight = nn.Parameter(torch.ones(value_dim))
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

        q, f, v = self.qfv_proj(x).split(self.widths, dim=-1)
        q = nn.functional.silu(q)
        g, k = self.forget(f)
        if attention_mask is not None:  # values are 0 there already
            g = g.masked_fill(padded, 0.0)
        q, k, v, g = (t.unflatten(-1, (self.num_heads, -1)) for t in (q, k, v, g))
        o, _ = linear_attention(q, k, v, g, scale=1.0)

        o = rms_norm(o.flatten(-2), self.norm_weight, self.norm_eps)
        y = self.out_proj(o)
        if attention_mask is not None:
            y = y.masked_fill(padded, 0.0)
        return y, None, past_key_values
