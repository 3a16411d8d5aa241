"""ada_multi_path_gate_net: AdaMultiPathGateNet (arXiv 2507.18074), a gate at three levels.

Every head keeps a matrix S [V, K] that maps keys to values, and mixes its answer with
filtered values, for token t (* is per channel):

    S_t = S_(t-1) (I - b_t k_t k_t^T) + b_t v_t k_t^T
    m_t = S_t q_t
    s_t = sum_(i < 5) A_i * v_(t-i),  l_t = sum_(i < 64) C_i * v_(t-i)
    z_t = z_global + z_head + W_2 silu(W_1 x_t)
    a_t = 0.02 + 0.92 softmax(z_t)
    o_t = a_t[1] v_t + a_t[2] s_t + a_t[3] l_t + a_t[4] m_t
    y_t = W_o RMSNorm(o_t)
    aux = 0.01 (1 - mean entropy(a_t) / log 4)

Mechanisms, in the order of the computation:

- values: short convolution over 4 tokens, SiLU
- queries, keys: short convolution over 4 tokens, SiLU, L2 norm
- writes: strength b_t in (0, 1) per head and token
- memory: never forgets
- paths: value, short FIR filter, long FIR filter, memory
- fusion: a softmax over the paths per head and token, with a floor of 2 % for each
- auxiliary loss: up to 0.008 where shares are one-sided, none where they are even
- output norm: RMS per head

Source: ASI-ARCH, section 3.2, "Adaptive Multi-Path Gating", written from the paper's text,
not from its code. It asks for one BalancedSparseGate over global, per-head and per-token
logits, for a small epsilon floor and for an entropy penalty that is always on.

The paper leaves open which paths there are and how they are kept at one scale; here they
are the four that the same section names for PathGateFusionNet: the value itself, filters
over 5 and 64 tokens that start as the identity, and the memory. Queries and keys have
length one and the read-out is not divided by sqrt(K), so the memory answers at the scale
of the values, and paths are not normed one by one. Their mix is, per head, before the output
projection, as in the programs that ASI-ARCH has published.

It also leaves open what the logits are, what makes the gate sparse and how strong floor and
penalty are; here global logits are one number per path for all heads of the layer, head
logits one per path and head, and token logits come from a small MLP. The gate is a softmax:
it can put all but the floors on one path, and unlike a sparsemax it always gives the
penalty a gradient. The penalty keeps its weight throughout, in training and evaluation.

Work and memory are linear in the length, and no position sees a later one.
"""

import math
from typing import Any

import torch
from torch import nn

from asi_lab.kernels import delta_rule, fir_bank, path_mix, qkv_convolution, rms_norm

PATHS = 4  # value, short FIR, long FIR, memory
EPSILON = 0.02  # the least share of a path
PENALTY = 0.01  # weight of the entropy penalty


class BalancedSparseGate(nn.Module):
    """Logits of the paths: global, per-head and per-token ones added up."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        inner = max(1, width // 2)
        self.global_logits = nn.Parameter(torch.zeros(PATHS))
        self.head_logits = nn.Parameter(torch.zeros(heads * PATHS))
        self.inner = nn.Linear(width, inner, bias=False)
        self.token_logits = nn.Linear(inner, heads * PATHS, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [B, L, D] -> [B, L, H, P]."""
        token: torch.Tensor = self.token_logits(nn.functional.silu(self.inner(x)))
        logits = (token + self.head_logits).view(*x.shape[:2], -1, PATHS)
        return logits + self.global_logits


class DeltaNet(nn.Module):
    """One token-mixing layer, [B, L, D] to [B, L, D].

    `d_model` wins over `hidden_size`; `expand_k` and `expand_v` scale the widths of
    keys and values. `mode`, `use_*`, `conv_size`, `allow_neg_eigval`, `qk_activation`
    and `qk_norm` belong to the common interface: this architecture fixes what they
    name, so they change nothing.
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
            widths = f"{key_dim} and {value_dim}"
            raise ValueError(f"widths {widths} must divide by {num_heads} heads")
        self.num_heads = num_heads
        self.head_key_dim = key_dim // num_heads
        channels = 2 * key_dim + value_dim
        self.qkv_proj = nn.Linear(width, channels, bias=False)
        bound = 4**-0.5
        self.conv_weight = nn.Parameter(torch.empty(channels, 4).uniform_(-bound, bound))
        self.conv_bias = nn.Parameter(torch.zeros(channels)) if conv_bias else None
        self.beta_proj = nn.Linear(width, num_heads, bias=False)
        # A filter starts as the identity: its last tap is the present token.
        self.short_fir = nn.Parameter(torch.eye(5)[-1].repeat(value_dim, 1))
        self.long_fir = nn.Parameter(torch.eye(64)[-1].repeat(value_dim, 1))
        self.gate = BalancedSparseGate(width, num_heads)
        self.norm_eps = norm_eps
        self.norm_weight = nn.Parameter(torch.ones(value_dim // num_heads))
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

        Returns the output, the entropy penalty, and `past_key_values` as given.
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
        if attention_mask is not None:  # padding leaves no trace in memory and filters
            k = k.masked_fill(padded[..., None], 0.0)
            v = v.masked_fill(padded[..., None], 0.0)
        memory, _ = delta_rule(q, k, v, beta, scale=1.0)
        short, long = fir_bank(v, [self.short_fir, self.long_fir])

        o, _, entropy = path_mix([v, short, long, memory], self.gate(x), floor=EPSILON)

        lacking = 1.0 - entropy / math.log(PATHS)
        if attention_mask is not None:  # padding is not penalised
            lacking = lacking.masked_fill(padded, 0.0)
        penalty = PENALTY * lacking.mean()
        o = rms_norm(o, self.norm_weight, self.norm_eps)
        y = self.out_proj(o.flatten(-2))
        if attention_mask is not None:
            y = y.masked_fill(padded, 0.0)
        return y, penalty, past_key_values
