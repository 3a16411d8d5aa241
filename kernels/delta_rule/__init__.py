"""The delta rule: a linear memory that is corrected towards each value (arXiv 2406.06484)."""

from torch import Tensor

from asi_lab.kernels.common import check_shapes
from asi_lab.kernels.delta_rule.chunk import chunk_delta_rule
from asi_lab.kernels.delta_rule.naive import naive_delta_rule
from asi_lab.kernels.fla_ops import fla_delta_rule
from asi_lab.kernels.norms import l2_norm
from asi_lab.kernels.recurrence import Forms, Implementation, pick_form, recur

_FORMS = Forms(naive_delta_rule, chunk_delta_rule, fla_delta_rule)


def delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    scale: float | None = None,
    initial_state: Tensor | None = None,
    output_final_state: bool = False,
    use_qk_l2norm_in_kernel: bool = False,
    cu_seqlens: Tensor | None = None,
    *,
    implementation: Implementation = "auto",
    chunk_size: int | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Write by the delta rule, read linearly: `S <- S + beta k (v - S^T k)^T`, `o = scale S^T q`.

    q, k are `[B, T, H, K]`, v `[B, T, H, V]`, beta `[B, T, H]` (0 writes nothing, 1 replaces; up to 2
    allows negative eigenvalues), `initial_state` `[B, H, K, V]`. Keys should have length one:
    `use_qk_l2norm_in_kernel` sees to it. `scale` defaults to `K ** -0.5`; `chunk_size` (a power of two)
    to what is fastest for the device and width. All floating types; computed in float32 (float64 for
    float64), except in the form "fla": flash-linear-attention's kernels, which "auto" takes for bfloat16 and
    float16 on a GPU.

    `cu_seqlens` `[N + 1]` packs N sequences into a batch of one: the n-th is tokens `cu_seqlens[n]` to
    `cu_seqlens[n + 1]`, maybe none, and the states are `[N, H, K, V]`. "chunk" pads all to the longest; "fla"
    does not look whether the bounds make sense.

    Returns o `[B, T, H, V]` in v's dtype and the last state `[B, H, K, V]` (None unless asked for).
    Raises ValueError for shapes that do not fit.
    """
    check_shapes(q, k, v, initial_state, cu_seqlens, beta=beta)
    if use_qk_l2norm_in_kernel:
        q, k = l2_norm(q), l2_norm(k)
    if scale is None:
        scale = q.shape[-1] ** -0.5
    form = pick_form(_FORMS, implementation, k, v, cu_seqlens)
    tokens = (q, k, v, beta)
    return recur(_FORMS, form, tokens, scale, initial_state, output_final_state, cu_seqlens, chunk_size)
