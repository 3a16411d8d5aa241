"""The gated delta rule: the delta rule on a memory that also decays (arXiv 2412.06464)."""

from torch import Tensor

from asi_lab.kernels.fla_ops import fla_gated_delta_rule
from asi_lab.kernels.foreign import drop_in
from asi_lab.kernels.gated_delta_rule.chunk import chunk_delta_rule
from asi_lab.kernels.gated_delta_rule.naive import naive_gated_delta_rule
from asi_lab.kernels.recurrence import Forms, Implementation, recur_delta

_FORMS = Forms(naive_gated_delta_rule, chunk_delta_rule, fla_gated_delta_rule)


@drop_in
def gated_delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
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
    """Decay, write by the delta rule, read: `S <- e^g S`, `S <- S + beta k (v - S^T k)^T`, `o = scale S^T q`.

    q, k are `[B, T, H, K]`, v `[B, T, H, V]`, g and beta `[B, T, H]`, `initial_state` `[B, H, K, V]`.
    g is the logarithm of the decay, at most 0; strong decay (-20 and below) is safe. The other arguments
    and the types are those of `delta_rule`.

    Returns o `[B, T, H, V]` in v's dtype and the last state `[B, H, K, V]` (None unless asked for).
    Takes the keywords of flash-linear-attention's functions too, or says what to do instead
    (`kernels.foreign`). Raises ValueError for what is no tensor and for shapes that do not fit.
    """
    states = (initial_state, output_final_state, use_qk_l2norm_in_kernel, cu_seqlens)
    return recur_delta(_FORMS, q, k, v, (g,), beta, scale, *states, implementation, chunk_size)
