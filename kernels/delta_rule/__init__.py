"""The delta rule: a linear memory that is corrected towards each value (arXiv 2406.06484)."""

from torch import Tensor

from asi_lab.kernels.delta_rule.chunk import chunk_delta_rule
from asi_lab.kernels.delta_rule.naive import naive_delta_rule
from asi_lab.kernels.fla_ops import fla_delta_rule
from asi_lab.kernels.foreign import drop_in
from asi_lab.kernels.recurrence import Forms, Implementation, recur_delta

_FORMS = Forms(naive_delta_rule, chunk_delta_rule, fla_delta_rule)


@drop_in
def delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor | None = None,
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

    q, k are `[B, T, H, K]`, v `[B, T, H, V]`, beta `[B, T, H]` (0 writes nothing, 1, as without it, replaces;
    up to 2 allows negative eigenvalues), `initial_state` `[B, H, K, V]`. v may have HV heads, a multiple of
    H: then a head of q and k serves HV / H of them in a row, and gates and states have HV. A beta
    `[B, T, H, V]`, one for each value channel, costs as much as V heads. Keys should have length one:
    `use_qk_l2norm_in_kernel` sees to it. `scale` defaults to `K ** -0.5`; `chunk_size` (a power of two)
    to what is fastest for the device and width. All floating types; computed in float32 (float64 for
    float64), except in the form "fla": flash-linear-attention's kernels, which "auto" takes for bfloat16 and
    float16 on a GPU.

    `cu_seqlens` `[N + 1]` packs N sequences into a batch of one: the n-th is tokens `cu_seqlens[n]` to
    `cu_seqlens[n + 1]`, maybe none, and the states are `[N, H, K, V]`. "chunk" pads all to the longest; "fla"
    does not look whether the bounds make sense.

    Returns o `[B, T, H, V]` in v's dtype and the last state `[B, H, K, V]` (None unless asked for).
    Takes the keywords of flash-linear-attention's functions too, or says what to do instead
    (`kernels.foreign`). Raises ValueError for what is no tensor and for shapes that do not fit.
    """
    states = (initial_state, output_final_state, use_qk_l2norm_in_kernel, cu_seqlens)
    return recur_delta(_FORMS, q, k, v, (), beta, scale, *states, implementation, chunk_size)
