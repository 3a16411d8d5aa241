"""Kimi delta attention, one token at a time: the readable truth."""

import torch
from torch import Tensor

from asi_lab.kernels.common import compute_dtype, first_state


def naive_kda(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, scale: float, initial_state: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Decay the memory's channels, read what it holds for the key, write the difference, read for the query.

        S <- diag(exp(g_t)) S;   S <- S + beta_t k_t (v_t - S^T k_t)^T;   o_t = scale S^T q_t

    Shapes as in `kda`. Returns o `[B, T, H, V]` and the last state `[B, H, K, V]`.
    """
    state = first_state(initial_state, k, v)
    dtype, outputs = v.dtype, []
    q, k, v, g, beta = (x.to(compute_dtype(v)) for x in (q, k, v, g, beta))
    for t in range(q.shape[1]):
        state = state * g[:, t, :, :, None].exp()
        error = v[:, t] - torch.einsum("bhk,bhkv->bhv", k[:, t], state)
        state = state + torch.einsum("bhk,bhv->bhkv", k[:, t], beta[:, t, :, None] * error)
        outputs.append(scale * torch.einsum("bhk,bhkv->bhv", q[:, t], state))
    return torch.stack(outputs, 1).to(dtype), state
