"""Retention, one token at a time: the readable truth."""

import torch
from torch import Tensor

from asi_lab.kernels.common import compute_dtype, first_state


def retention_decay(v: Tensor) -> Tensor:
    """The decay of each head of v `[B, T, H, V]`, `1 - 2^(-5 - h)`: `[H]`."""
    heads = torch.arange(v.shape[2], dtype=compute_dtype(v), device=v.device)
    return 1 - torch.exp2(-5 - heads)


def naive_retention(
    q: Tensor, k: Tensor, v: Tensor, scale: float, initial_state: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Decay the memory by the rate of its head, add the value under its key, read for the query.

        S <- gamma S + k_t v_t^T;   o_t = scale S^T q_t

    Shapes as in `retention`. Returns o `[B, T, H, V]` and the last state `[B, H, K, V]`.
    """
    state, gamma = first_state(initial_state, k, v), retention_decay(v)
    dtype, outputs = v.dtype, []
    q, k, v = (x.to(compute_dtype(v)) for x in (q, k, v))
    for t in range(q.shape[1]):
        state = gamma[:, None, None] * state + torch.einsum("bhk,bhv->bhkv", k[:, t], v[:, t])
        outputs.append(scale * torch.einsum("bhk,bhkv->bhv", q[:, t], state))
    return torch.stack(outputs, 1).to(dtype), state
