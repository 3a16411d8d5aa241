"""fusion_gated_fir_net: FusionGatedFIRNet (arXiv 2507.18074), parallel sigmoid gates.

Every head keeps a matrix S [V, K] that maps keys to values and fades by a learned
retention r, and adds its answer to filtered values, for token t (* is per channel):

    S_t = r S_(t-1) (I - b_t k_t k_t^T) + b_t v_t k_t^T
    m_t = S_t q_t
    s_t = sum_(i < 5) A_i * v_(t-i),  l_t = sum_(i < 64) C_i * v_(t-i)
    g_t = sigmoid(W_2 silu(W_1 x_t) + c), four per head
    o_t = g_t[1] v_t + g_t[2] s_t + g_t[3] l_t + g_t[4] m_t
    y_t = W_o RMSNorm(o_t)

Mechanisms, in the order of the computation:

- values: short convolution over 4 tokens, SiLU
- queries, keys: short convolution over 4 tokens, SiLU, L2 norm
- writes: strength b_t in (0, 1) per head and token
- decay: retention r in (0, 1), one learned number per head
- paths: value, short FIR filter, long FIR filter, memory
- fusion: a sigmoid gate per head, token and path; the gated paths are added
- output norm: RMS per head

Source: ASI-ARCH, section 3.2, "Parallel Sigmoid Fusion with Retention", written from the
paper's text, not from its code. It asks for independent sigmoid gates instead of one
softmax, so that local and global paths can be open at once, and for a learned retention
per head in the delta rule.

The paper leaves open which paths there are and how they are kept at one scale; here they
are the four that the same section names for PathGateFusionNet: the value itself, filters
over 5 and 64 tokens that start as the identity, and the memory. Queries and keys have
length one and the read-out is not divided by sqrt(K), so the memory answers at the scale
of the values, and paths are not normed one by one. Their mix is, per head, before the output
projection, as in the programs that ASI-ARCH has published.

It also leaves open what the gates read and where gates and retention start; here the gates
read the token through a small MLP and start half open, and r starts with a horizon
1 / (1 - r) of 1024 tokens in the first head, down to 32 in the last.

Work and memory are linear in the length, and no position sees a later one.
"""

import math
from typing import Any

import torch
from torch import nn

from asi_lab.kernels import fir_bank, gated_delta_rule, path_mix, qkv_convolution, rms_norm

PATHS = 4  # value, short FIR, long FIR, memory


class ParallelGates(nn.Module):
    """Logits of sigmoid gates per token, head and path: none opens at another's cost."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        inner = max(1, width // 2)
        self.inner = nn.Linear(width, inner, bias=False)
        self.logits = nn.Linear(inner, heads * PATHS)
        nn.init.zeros_(self.logits.bias)  # the gates start half open

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [B, L, D] -> [B, L, H, P]."""
        logits: torch.Tensor = self.logits(nn.functional.silu(self.inner(x)))
        return logits.view(*x.shape[:2], -1, PATHS)


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
        # The horizon 1 / (1 - r) starts at 1024 tokens in the first head, at 32 in the last.
        start = torch.linspace(math.log(1023.0), math.log(31.0), num_heads)
        self.retention = nn.Parameter(start)
        # A filter starts as the identity: its last tap is the present token.
        self.short_fir = nn.Parameter(torch.eye(5)[-1].repeat(value_dim, 1))
        self.long_fir = nn.Parameter(torch.eye(64)[-1].repeat(value_dim, 1))
        self.gates = ParallelGates(width, num_heads)
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
        g = nn.functional.logsigmoid(self.retention).expand_as(beta)
        if attention_mask is not None:  # padding leaves no trace in memory and filters
            k = k.masked_fill(padded[..., None], 0.0)
            v = v.masked_fill(padded[..., None], 0.0)
            g = g.masked_fill(padded, 0.0)
        memory, _ = gated_delta_rule(q, k, v, g, beta, scale=1.0)
        short, long = fir_bank(v, [self.short_fir, self.long_fir])

        o, _, _ = path_mix([v, short, long, memory], self.gates(x), routing="sigmoid")
        o = rms_norm(o, self.norm_weight, self.norm_eps)
        y = self.out_proj(o.flatten(-2))
        if attention_mask is not None:
            y = y.masked_fill(padded, 0.0)
        return y, None, past_key_values
