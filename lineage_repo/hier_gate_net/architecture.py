"""hier_gate_net: HierGateNet (arXiv 2507.18074), a two-stage gate with dynamic floors.

Every head keeps a matrix S [V, K] that maps keys to values, and mixes its answer with
filtered values, for token t (* is per channel):

    S_t = S_(t-1) (I - b_t k_t k_t^T) + b_t v_t k_t^T
    m_t = S_t q_t
    s_t = sum_(i < 5) A_i * v_(t-i),  l_t = sum_(i < 64) C_i * v_(t-i)
    u_t = silu(W x_t)
    [local_t, global_t] = softmax(M u_t + c)
    w_t = [local_t softmax(F_1 u_t + d_1), global_t softmax(F_2 u_t + d_2)]
    f_t = 0.02 + 0.18 sigmoid(E u_t + e)
    a_t = f_t + (1 - sum f_t) w_t
    o_t = a_t[1] v_t + a_t[2] s_t + a_t[3] l_t + a_t[4] m_t
    y_t = W_o RMSNorm(o_t)

Mechanisms, in the order of the computation:

- values: short convolution over 4 tokens, SiLU
- queries, keys: short convolution over 4 tokens, SiLU, L2 norm
- writes: strength b_t in (0, 1) per head and token
- memory: never forgets
- paths: value and short FIR filter (local), long FIR filter and memory (global)
- fusion: first local against global, then within each of the two, per head and token
- floors: each path has between 2 % and 20 %, by head and token
- output norm: RMS per head

Source: ASI-ARCH, section 3.2, "Hierarchical Gating with Dynamic Floors", written from the
paper's text, not from its code. It asks for a stage that weighs local against global and
one of fine routing, and for learned floors per path and head that adapt to the context,
so that no path, above all the memory, can collapse.

The paper leaves open which paths there are and how they are kept at one scale; here they
are the four that the same section names for PathGateFusionNet: the value itself, filters
over 5 and 64 tokens that start as the identity, and the memory. Queries and keys have
length one and the read-out is not divided by sqrt(K), so the memory answers at the scale
of the values, and paths are not normed one by one. Their mix is, per head, before the output
projection, as in the programs that ASI-ARCH has published.

It also leaves open which paths are local, what the gate reads and how floors are bounded;
here two paths are local and two global, everything reads the token through one small MLP,
and floors act on the product of the stages. They are bounded on both sides: 2 % because a
learned floor could otherwise vanish, 20 % because four of them must stay below 1. That of
the memory starts above the others.

Work and memory are linear in the length, and no position sees a later one.
"""

from typing import Any

import torch
from torch import nn

from asi_lab.kernels import delta_rule, fir_bank, path_mix, qkv_convolution, rms_norm

PATHS = 4  # local: value, short FIR; global: long FIR, memory
LEAST, MOST = 0.02, 0.2  # the range of a path's floor; four floors stay below 1


class HierarchicalGate(nn.Module):
    """Logits of two stages, and a floor per token, head and path."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        inner = max(1, width // 2)
        self.inner = nn.Linear(width, inner, bias=False)
        self.splits = [2 + PATHS, PATHS]
        self.logits = nn.Linear(inner, heads * sum(self.splits))
        # Even shares to start with; of the floors the memory's starts highest.
        start = torch.tensor([0.0] * (2 + PATHS) + [-1.0, -1.0, -1.0, 1.0])
        self.logits.bias.data.copy_(start.repeat(heads))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """x [B, L, D] -> logits of both stages [B, L, H, 2 + P], floors [B, L, H, P]."""
        logits = self.logits(nn.functional.silu(self.inner(x)))
        logits = logits.unflatten(-1, (-1, sum(self.splits)))
        stages, floor = logits.split(self.splits, dim=-1)
        return stages, LEAST + (MOST - LEAST) * torch.sigmoid(floor)


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
        self.gate = HierarchicalGate(width, num_heads)
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
        if attention_mask is not None:  # padding leaves no trace in memory and filters
            k = k.masked_fill(padded[..., None], 0.0)
            v = v.masked_fill(padded[..., None], 0.0)
        memory, _ = delta_rule(q, k, v, beta, scale=1.0)
        short, long = fir_bank(v, [self.short_fir, self.long_fir])

        logits, floor = self.gate(x)
        paths = [v, short, long, memory]
        o, _, _ = path_mix(paths, logits, routing="hierarchical", groups=(2, 2), floor=floor)
        o = rms_norm(o, self.norm_weight, self.norm_eps)
        y = self.out_proj(o.flatten(-2))
        if attention_mask is not None:
            y = y.masked_fill(padded, 0.0)
        return y, None, past_key_values
