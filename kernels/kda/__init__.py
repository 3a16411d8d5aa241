"""Kimi delta attention: the delta rule with a decay for each key channel (arXiv 2510.26692)."""

from torch import Tensor

from asi_lab.kernels.common import check_shapes
from asi_lab.kernels.fla_ops import fla_kda
from asi_lab.kernels.gated_delta_rule.chunk import chunk_delta_rule
from asi_lab.kernels.kda.naive import naive_kda
from asi_lab.kernels.norms import l2_norm
from asi_lab.kernels.recurrence import Forms, Implementation, pick_form, recur

_FORMS = Forms(naive_kda, chunk_delta_rule, fla_kda)


def kda(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
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
    """Decay the channels, write by the delta rule, read: `S <- diag(e^g) S`, then as `gated_delta_rule`.

    q, k and g are `[B, T, H, K]`, v `[B, T, H, V]`, beta `[B, T, H]`, `initial_state` `[B, H, K, V]`.
    g is the logarithm of the decay, at most 0; decay of any strength is exact, down to -inf. The other
    arguments and the types are those of `delta_rule`.

    Returns o `[B, T, H, V]` in v's dtype and the last state `[B, H, K, V]` (None unless asked for).
    Raises ValueError for shapes that do not fit.
    """
    check_shapes(q, k, v, initial_state, cu_seqlens, beta=beta)
    if g.shape != k.shape:
        raise ValueError(f"g must be [B, T, H, K] = {list(k.shape)}, got {list(g.shape)}")
    if use_qk_l2norm_in_kernel:
        q, k = l2_norm(q), l2_norm(k)
    if scale is None:
        scale = q.shape[-1] ** -0.5
    form = pick_form(_FORMS, implementation, k, v, cu_seqlens)
    tokens = (q, k, v, g, beta)
    return recur(_FORMS, form, tokens, scale, initial_state, output_final_state, cu_seqlens, chunk_size)
