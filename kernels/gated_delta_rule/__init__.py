"""The gated delta rule: the delta rule on a memory that also decays (arXiv 2412.06464)."""

from torch import Tensor

from asi_lab.kernels.common import check_shapes
from asi_lab.kernels.fla_ops import fla_gated_delta_rule
from asi_lab.kernels.gated_delta_rule.chunk import chunk_delta_rule
from asi_lab.kernels.gated_delta_rule.naive import naive_gated_delta_rule
from asi_lab.kernels.norms import l2_norm
from asi_lab.kernels.recurrence import Forms, Implementation, pick_form, recur

_FORMS = Forms(naive_gated_delta_rule, chunk_delta_rule, fla_gated_delta_rule)


def gated_delta_rule(
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
    """Decay, write by the delta rule, read: `S <- e^g S`, `S <- S + beta k (v - S^T k)^T`, `o = scale S^T q`.

    q, k are `[B, T, H, K]`, v `[B, T, H, V]`, g and beta `[B, T, H]`, `initial_state` `[B, H, K, V]`.
    g is the logarithm of the decay, at most 0; strong decay (-20 and below) is safe. The other arguments
    and the types are those of `delta_rule`.

    Returns o `[B, T, H, V]` in v's dtype and the last state `[B, H, K, V]` (None unless asked for).
    Raises ValueError for shapes that do not fit.
    """
    check_shapes(q, k, v, initial_state, cu_seqlens, g=g, beta=beta)
    if use_qk_l2norm_in_kernel:
        q, k = l2_norm(q), l2_norm(k)
    if scale is None:
        scale = q.shape[-1] ** -0.5
    form = pick_form(_FORMS, implementation, k, v, cu_seqlens)
    tokens = (q, k, v, g, beta)
    return recur(_FORMS, form, tokens, scale, initial_state, output_final_state, cu_seqlens, chunk_size)
