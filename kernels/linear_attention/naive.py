"""Linear attention, one token at a time: the readable truth."""

import torch
from torch import Tensor

from asi_lab.kernels.common import compute_dtype, first_state


def naive_linear_attention(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, scale: float, initial_state: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Decay the memory or each of its channels, add the value under its key, read for the query.

        S <- exp(g_t) S + k_t v_t^T;   o_t = scale S^T q_t

    Shapes as in `linear_attention`. Returns o `[B, T, H, V]` and the last state `[B, H, K, V]`.
    """
    state = first_state(initial_state, k, v)
    dtype, outputs = v.dtype, []
    q, k, v = (x.to(compute_dtype(v)) for x in (q, k, v))
    for t in range(q.shape[1]):
        if g is not None:
            state = state * g[:, t].to(v.dtype).exp().view(*state.shape[:2], -1, 1)
        state = state + torch.einsum("bhk,bhv->bhkv", k[:, t], v[:, t])
        outputs.append(scale * torch.einsum("bhk,bhkv->bhv", q[:, t], state))
    return torch.stack(outputs, 1).to(dtype), state
