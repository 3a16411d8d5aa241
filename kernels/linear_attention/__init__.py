"""Linear attention with an optional scalar decay: retention (arXiv 2307.08621), simple GLA."""

from typing import Literal

import torch
from torch import Tensor

from asi_lab.kernels.common import check_shapes, choose
from asi_lab.kernels.linear_attention.chunk import chunk_linear_attention
from asi_lab.kernels.linear_attention.naive import naive_linear_attention


def linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None = None,
    scale: float | None = None,
    initial_state: Tensor | None = None,
    output_final_state: bool = False,
    *,
    implementation: Literal["auto", "naive", "chunk"] = "auto",
    chunk_size: int | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Decay, add, read: `S <- e^g S + k v^T`, `o = scale S^T q`. No normaliser is applied.

    q, k are `[B, T, H, K]`, v `[B, T, H, V]`, g `[B, T, H]` (logarithm of the decay, at most 0; None for
    no decay), `initial_state` `[B, H, K, V]`. `scale` defaults to `K ** -0.5`.

    Returns o `[B, T, H, V]` in v's dtype and the last state `[B, H, K, V]` (None unless asked for).
    Raises ValueError for shapes that do not fit.
    """
    check_shapes(q, k, v, initial_state, g=g)
    if scale is None:
        scale = q.shape[-1] ** -0.5
    fast = "chunk" if q.shape[1] > 1 else "naive"  # one token is a decoding step
    form = choose(implementation, v, ("naive", "chunk"), cpu=fast, gpu=fast)
    with torch.autocast(v.device.type, enabled=False):
        if form == "chunk":
            o, state = chunk_linear_attention(q, k, v, g, scale, initial_state, chunk_size)
        else:
            o, state = naive_linear_attention(q, k, v, g, scale, initial_state)
    return o, state if output_final_state else None
