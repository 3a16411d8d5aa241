"""The delta rule, one token at a time: the readable truth."""

import torch
from torch import Tensor

from asi_lab.kernels.common import compute_dtype, first_state


def naive_delta_rule(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, scale: float, initial_state: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Read what the memory holds for the key, write the difference to the value, read for the query.

        S <- S + beta_t k_t (v_t - S^T k_t)^T;   o_t = scale S^T q_t

    Shapes as in `delta_rule`. Returns o `[B, T, H, V]` and the last state `[B, H, K, V]`.
    """
    state = first_state(initial_state, k, v)
    dtype, outputs = v.dtype, []
    q, k, v, beta = (x.to(compute_dtype(v)) for x in (q, k, v, beta))
    for t in range(q.shape[1]):
        error = v[:, t] - torch.einsum("bhk,bhkv->bhv", k[:, t], state)
        state = state + torch.einsum("bhk,bhv->bhkv", k[:, t], beta[:, t, :, None] * error)
        outputs.append(scale * torch.einsum("bhk,bhkv->bhv", q[:, t], state))
    return torch.stack(outputs, 1).to(dtype), state
