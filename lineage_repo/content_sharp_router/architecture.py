"""content_sharp_router: ContentSharpRouter of ASI-Arch (section 3.2 of the paper), routing by content.

Queries, keys and values are those of DeltaNet. Every head has four paths from its values v_t [V]:

    direct_t = v_t
    short_t  = sum_(i < 5)  w_i * v_(t-i)                   FIR filter, one per channel
    long_t   = sum_(i < 64) u_i * v_(t-i)                   FIR filter, one per channel
    delta_t  = S_t q_t,  S_t = S_(t-1) (I - b_t k_t k_t^T) + b_t v_t k_t^T

The router compares what the token x_t asks for with what path p of the head holds:

    a_t     = W_a x_t                                       16 numbers per head
    e_(t,p) = n_p + W_e RMSNorm(path_(t,p))                 the path's name and its content
    s_(t,p) = cosine of a_t and e_(t,p), in [-1, 1]
    tau_t   = 1/4 + softplus(W_tau x_t + c)                 temperature per head and token
    y_t     = W_o RMSNorm(sum_p softmax_p(s_(t,p) / tau_t) path_(t,p))

Since the scores are bounded, the temperature alone sets how decisive a choice is. Its floor of 1/4 is
what keeps a head from locking into a path: no share falls under 1 / (1 + 3 e^8), about 1e-4, and every
path goes on getting a gradient.

The paper says that routing follows the content's meaning and that a learnable temperature adjusts its
sharpness. It leaves open the rest; here

- the paths are those that the paper names for PathGateFusionNet;
- filters are 5 and 64 tokens long and start as the current token and as the mean of what they span;
- content is compared by cosine, with W_e shared by heads and paths and one name n_p per path;
- the temperature depends on the token, with its own bias c per head, and starts at 1, where the
  largest share is at most e^2 times the smallest;
- the delta rule is read without the factor 1 / sqrt(K), so that what it recalls is as large as what
  was written, and a share means the same for every path.

Work and memory are linear in the length, and no position sees a later one.
"""

import math
from typing import Any

import torch
from torch import nn

from asi_lab.kernels import delta_rule, fir_bank, l2_norm, path_mix, qkv_convolution, rms_norm


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


class ContentRouter(nn.Module):
    """Scores of the paths and a temperature, per head and token: cosines of request and content."""

    FLOOR = 0.25

    def __init__(self, width: int, num_heads: int, head_width: int, paths: int, rank: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.request_proj = nn.Linear(width, num_heads * rank, bias=False)
        self.content_proj = nn.Linear(head_width, rank, bias=False)
        self.names = nn.Parameter(torch.randn(paths, rank))
        self.temperature_proj = nn.Linear(width, num_heads)
        nn.init.constant_(self.temperature_proj.bias, math.log(math.expm1(1.0 - self.FLOOR)))

    def forward(self, x: torch.Tensor, paths: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """x [B, L, D] and P paths [B, L, H, V] -> scores [B, L, H, P] and temperature [B, L, H]."""
        request = l2_norm(self.request_proj(x).unflatten(-1, (self.num_heads, -1)))
        content = l2_norm(self.names + self.content_proj(rms_norm(torch.stack(paths, dim=-2))))
        scores = (request[..., None, :] * content).sum(-1)
        return scores, self.FLOOR + nn.functional.softplus(self.temperature_proj(x))


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
        use_gate: bool = False,
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
        head_width = value_dim // num_heads
        self.num_heads = num_heads
        self.head_key_dim = key_dim // num_heads
        channels = 2 * key_dim + value_dim
        self.qkv_proj = nn.Linear(width, channels, bias=False)
        bound = 4**-0.5
        self.conv_weight = nn.Parameter(torch.empty(channels, 4).uniform_(-bound, bound))
        self.conv_bias = nn.Parameter(torch.zeros(channels)) if conv_bias else None
        self.beta_proj = nn.Linear(width, num_heads, bias=False)
        self.filters = FIRFilters(value_dim, short=5, long=64)
        self.router = ContentRouter(width, num_heads, head_width, paths=4, rank=16)
        self.norm_eps = norm_eps
        self.norm_weight = nn.Parameter(torch.ones(head_width))
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
        scores, temperature = self.router(x, paths)
        o, _, _ = path_mix(paths, scores, temperature=temperature)

        o = rms_norm(o, self.norm_weight, self.norm_eps)
        y = self.out_proj(o.flatten(-2))
        if attention_mask is not None:
            y = y.masked_fill(padded, 0.0)
        return y, None, past_key_values
