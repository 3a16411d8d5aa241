"""The state space recurrence of Mamba-2, one token at a time: the readable truth."""

import torch
from torch import Tensor

from asi_lab.kernels.common import compute_dtype, first_state


def naive_ssd(
    C: Tensor, B: Tensor, x: Tensor, dt: Tensor, A: Tensor, scale: float, initial_state: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Decay the state for the step's length, add the input for that length, read.

        S <- exp(A dt_t) S + B_t (dt_t x_t)^T;   y_t = scale S^T C_t

    Shapes as in `ssd`, except that the state is `[B, H, N, P]`; dt is final and A the same at every token,
    `[B, T, H]`. Returns y `[B, T, H, P]` and the last state.
    """
    state = first_state(initial_state, B, x)
    dtype, outputs = x.dtype, []
    C, B, x, dt, A = (y.to(compute_dtype(x)) for y in (C, B, x, dt, A))
    C, B = (y.repeat_interleave(x.shape[2] // y.shape[2], 2) for y in (C, B))
    for t in range(x.shape[1]):
        decay = (A[:, t] * dt[:, t]).exp()[:, :, None, None]
        state = decay * state + torch.einsum("bhn,bhp->bhnp", B[:, t], dt[:, t, :, None] * x[:, t])
        outputs.append(scale * torch.einsum("bhn,bhnp->bhp", C[:, t], state))
    return torch.stack(outputs, 1).to(dtype), state
