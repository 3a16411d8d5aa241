"""The delta rule whose transition is diagonal plus low rank, one token at a time: the readable truth."""

import torch
from torch import Tensor

from asi_lab.kernels.common import compute_dtype, first_state


def naive_dplr_delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    b: Tensor,
    g: Tensor | None,
    scale: float,
    initial_state: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Read the memory along a, decay it, write what was read along b and the value under its key.

        S <- (diag(exp(g_t)) + b_t a_t^T) S + k_t v_t^T;   o_t = scale S^T q_t

    Shapes as in `dplr_delta_rule`. Returns o `[B, T, H, V]` and the last state `[B, H, K, V]`.
    """
    state = first_state(initial_state, k, v)
    dtype, outputs = v.dtype, []
    q, k, v, a, b = (x.to(compute_dtype(v)) for x in (q, k, v, a, b))
    for t in range(q.shape[1]):
        read = torch.einsum("bhk,bhkv->bhv", a[:, t], state)
        if g is not None:
            state = state * g[:, t].to(v.dtype).exp().view(*state.shape[:2], -1, 1)
        state = state + torch.einsum("bhk,bhv->bhkv", b[:, t], read)
        state = state + torch.einsum("bhk,bhv->bhkv", k[:, t], v[:, t])
        outputs.append(scale * torch.einsum("bhk,bhkv->bhv", q[:, t], state))
    return torch.stack(outputs, 1).to(dtype), state
