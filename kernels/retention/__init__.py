"""Retention: linear attention whose heads forget at fixed rates (arXiv 2307.08621)."""

import math

from torch import Tensor

from asi_lab.kernels.common import check_shapes
from asi_lab.kernels.fla_ops import fla_retention
from asi_lab.kernels.foreign import drop_in
from asi_lab.kernels.linear_attention.chunk import chunk_linear_attention
from asi_lab.kernels.recurrence import Forms, Implementation, pick_form, recur
from asi_lab.kernels.retention.naive import naive_retention, retention_decay

_FORMS = Forms(naive_retention, chunk_linear_attention, fla_retention, fla_widest=math.inf)


@drop_in
def retention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float | None = None,
    initial_state: Tensor | None = None,
    output_final_state: bool = False,
    cu_seqlens: Tensor | None = None,
    *,
    implementation: Implementation = "auto",
    chunk_size: int | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Decay, add, read: `S <- gamma_h S + k v^T`, `o = scale S^T q`, `gamma_h = 1 - 2^(-5 - h)`, h from 0.

    q, k are `[B, T, H, K]`, v `[B, T, H, V]`, `initial_state` `[B, H, K, V]`. `scale` defaults to
    `K ** -0.5`. `cu_seqlens` and the types are as in `delta_rule`.

    Returns o `[B, T, H, V]` in v's dtype and the last state `[B, H, K, V]` (None unless asked for).
    Takes the keywords of flash-linear-attention's functions too, or says what to do instead
    (`kernels.foreign`). Raises ValueError for what is no tensor and for shapes that do not fit.
    """
    check_shapes(q, k, v, initial_state, cu_seqlens)
    if scale is None:
        scale = q.shape[-1] ** -0.5
    form = pick_form(_FORMS, implementation, k, v, cu_seqlens)
    tokens = [q, k, v]
    if form == "chunk":
        tokens.append(retention_decay(v).log().expand(v.shape[:3]))
    return recur(_FORMS, form, tokens, scale, initial_state, output_final_state, cu_seqlens, chunk_size)
