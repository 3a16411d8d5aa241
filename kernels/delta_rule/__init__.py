"""The delta rule: a linear memory that is corrected towards each value (arXiv 2406.06484)."""

from typing import Literal

import torch
from torch import Tensor

from asi_lab.kernels.common import check_shapes, choose
from asi_lab.kernels.delta_rule.chunk import chunk_delta_rule
from asi_lab.kernels.delta_rule.naive import naive_delta_rule
from asi_lab.kernels.norms import l2_norm


def delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    scale: float | None = None,
    initial_state: Tensor | None = None,
    output_final_state: bool = False,
    use_qk_l2norm_in_kernel: bool = False,
    *,
    implementation: Literal["auto", "naive", "chunk"] = "auto",
    chunk_size: int | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Write by the delta rule, read linearly: `S <- S + beta k (v - S^T k)^T`, `o = scale S^T q`.

    q, k are `[B, T, H, K]`, v `[B, T, H, V]`, beta `[B, T, H]` (0 writes nothing, 1 replaces; up to 2
    allows negative eigenvalues), `initial_state` `[B, H, K, V]`. Keys should have length one:
    `use_qk_l2norm_in_kernel` sees to it. `scale` defaults to `K ** -0.5`; `chunk_size` (a power of two)
    to what is fastest for the device and width. All floating types; computed in float32 (float64 for
    float64).

    Returns o `[B, T, H, V]` in v's dtype and the last state `[B, H, K, V]` (None unless asked for).
    Raises ValueError for shapes that do not fit.
    """
    check_shapes(q, k, v, initial_state, beta=beta)
    if use_qk_l2norm_in_kernel:
        q, k = l2_norm(q), l2_norm(k)
    if scale is None:
        scale = q.shape[-1] ** -0.5
    fast = "chunk" if q.shape[1] > 1 else "naive"  # one token is a decoding step
    form = choose(implementation, v, ("naive", "chunk"), cpu=fast, gpu=fast)
    with torch.autocast(v.device.type, enabled=False):
        if form == "chunk":
            o, state = chunk_delta_rule(q, k, v, beta, scale, initial_state, chunk_size)
        else:
            o, state = naive_delta_rule(q, k, v, beta, scale, initial_state)
    return o, state if output_final_state else None
