"""path_gate_fusion_net: PathGateFusionNet of ASI-Arch (section 3.2 of its paper), a two-stage router.

Queries, keys and values are those of DeltaNet. Every head has four paths from its values v_t [V]:

    copy_t  = v_t
    short_t = sum_(i < 5)  w_i * v_(t-i)                    FIR filter, one per channel
    long_t  = sum_(i < 64) u_i * v_(t-i)                    FIR filter, one per channel
    delta_t = S_t q_t,  S_t = S_(t-1) (I - b_t k_t k_t^T) + b_t v_t k_t^T

The router sees the token x_t and the mean m and root mean square r of each path, per head:

    h_t = SiLU(W_x x_t + W_p [m, r])
    c_t = sigmoid(W_c h_t)                                  stage 1: the budget of the copy path
    p_t = softmax(W_s h_t)                                  stage 2: the shares of the contextual pool
    o_t = c_t copy_t + (1 - c_t) (p_t[0] short_t + p_t[1] long_t + p_t[2] delta_t) + e v_t
    y_t = W_o (sigmoid(W_g x_t + d) RMSNorm(o_t))           one output gate per head and token

The paper names the two stages, their paths, a small residual that is always on and output gates per
head. It leaves open the rest; here

- filters are 5 and 64 tokens long and start as the current token and as the mean of what they span;
- the router is an MLP with 16 hidden units per head; a budget and shares per head and token, which
  start at about a quarter of the whole for every path;
- the residual is that of the values, e = sigmoid(a) with one a per head, and starts at 0.05;
- the delta rule is read without the factor 1 / sqrt(K), so that what it recalls is as large as what
  was written, and a share means the same for every path;
- the output gate comes after the norm, which would undo it before, and starts at 0.88.

Work and memory are linear in the length, and no position sees a later one.
"""

import math
from typing import Any

import torch
from torch import nn

from asi_lab.kernels import delta_rule, fir_bank, path_mix, qkv_convolution, rms_norm


class FIRFilters(nn.Module):
    """A short and a long causal filter per channel, linear and depthwise."""

    def __init__(self, channels: int, short: int, long: int) -> None:
        super().__init__()
        now = torch.zeros(channels, short)
        now[:, -1] = 1.0
        self.short = nn.Parameter(now + 0.02 * torch.randn(channels, short))
        self.long = nn.Parameter(1.0 / long + 0.02 * torch.randn(channels, long))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """[B, L, H, V] -> both filtered, [B, L, H, V] each."""
        short, long = fir_bank(x, [self.short, self.long])
        return short, long


class TwoStageRouter(nn.Module):
    """Logits per head and token: copy against the pool, then the paths within each of the two."""

    def __init__(self, width: int, num_heads: int, pool: int, hidden: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.token_proj = nn.Linear(width, num_heads * hidden)
        self.path_proj = nn.Linear(2 * (1 + pool), hidden, bias=False)
        self.budget_proj = nn.Linear(hidden, 1)
        nn.init.constant_(self.budget_proj.bias, -math.log(pool))
        self.share_proj = nn.Linear(hidden, pool)

    def forward(self, x: torch.Tensor, paths: list[torch.Tensor]) -> torch.Tensor:
        """x [B, L, D] and paths [B, L, H, V], copy first -> logits [B, L, H, 2 + 1 + pool]."""
        means = [path.mean(-1) for path in paths]
        sizes = [torch.sqrt(path.pow(2).mean(-1) + 1e-6) for path in paths]
        statistics = torch.stack(means + sizes, dim=-1)
        token = self.token_proj(x).unflatten(-1, (self.num_heads, -1))
        hidden = nn.functional.silu(token + self.path_proj(statistics))
        # softmax(c, 0) is sigmoid(c), 1 - sigmoid(c). The second 0 is for the copy, alone in its group.
        budget = nn.functional.pad(self.budget_proj(hidden), (0, 2))
        return torch.cat((budget, self.share_proj(hidden)), dim=-1)


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
        self.filters = FIRFilters(value_dim, short=5, long=64)
        self.router = TwoStageRouter(width, num_heads, pool=3, hidden=16)
        self.residual_logit = nn.Parameter(torch.full((num_heads,), math.log(0.05 / 0.95)))
        self.norm_eps = norm_eps
        self.norm_weight = nn.Parameter(torch.ones(value_dim // num_heads))
        self.gate_proj = nn.Linear(width, num_heads)
        nn.init.constant_(self.gate_proj.bias, 2.0)
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
        if attention_mask is not None:  # padding leaves no trace in filters and memory
            k = k.masked_fill(padded[..., None], 0.0)
            v = v.masked_fill(padded[..., None], 0.0)

        short, long = self.filters(v)
        delta, _ = delta_rule(q, k, v, beta, scale=1.0)
        paths = [v, short, long, delta]
        o, _, _ = path_mix(paths, self.router(x, paths), routing="hierarchical", groups=(1, 3))
        o = o + torch.sigmoid(self.residual_logit)[:, None] * v

        o = rms_norm(o, self.norm_weight, self.norm_eps)
        o = o * torch.sigmoid(self.gate_proj(x))[..., None]
        y = self.out_proj(o.flatten(-2))
        if attention_mask is not None:
            y = y.masked_fill(padded, 0.0)
        return y, None, past_key_values
