"""The delta rule with a transition that is diagonal plus low rank, as in RWKV-7 (arXiv 2503.14456)."""

from torch import Tensor

from asi_lab.kernels.common import check_decay, check_shapes, check_tensors
from asi_lab.kernels.dplr_delta_rule.chunk import chunk_dplr_delta_rule
from asi_lab.kernels.dplr_delta_rule.naive import naive_dplr_delta_rule
from asi_lab.kernels.fla_ops import fla_dplr_delta_rule
from asi_lab.kernels.foreign import drop_in
from asi_lab.kernels.recurrence import Forms, Implementation, pick_form, recur

_FORMS = Forms(naive_dplr_delta_rule, chunk_dplr_delta_rule, fla_dplr_delta_rule)


@drop_in
def dplr_delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    b: Tensor,
    g: Tensor | None = None,
    scale: float | None = None,
    initial_state: Tensor | None = None,
    output_final_state: bool = False,
    cu_seqlens: Tensor | None = None,
    *,
    implementation: Implementation = "auto",
    chunk_size: int | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Transform, write, read: `S <- (diag(e^g) + b a^T) S + k v^T`, `o = scale S^T q`.

    q, k, a and b are `[B, T, H, K]`, v `[B, T, H, V]`, g the logarithm of the decay, at most 0:
    `[B, T, H, K]`, or `[B, T, H]` for one a head, or None for none. `initial_state` is `[B, H, K, V]`. a
    meets the state before its decay. Decay of any strength is exact, down to -inf; but the form "fla" keeps
    exp(-5.5) from one token to the next, as little as bfloat16 rounds off. Nothing bounds a and b: with
    `a = -c`, `b = beta c`, c of length one and beta from 0 to 1 (to 2 without decay) the state does not grow
    by itself; with larger ones it may, from token to token.

    RWKV-7 is `dplr_delta_rule(r, k, v, -kk, kk * a, w, scale=1.0)`, and the delta rules are cases of it, at
    half as much again: `gated_delta_rule` has `a = -e^g k`, `b = beta k`, and `beta v` for v. `scale`
    defaults to `K ** -0.5`; the other arguments and the types are those of `delta_rule`.

    Returns o `[B, T, H, V]` in v's dtype and the last state `[B, H, K, V]` (None unless asked for).
    Takes the keywords of flash-linear-attention's functions too, or says what to do instead
    (`kernels.foreign`). Raises ValueError for what is no tensor and for shapes that do not fit.
    """
    check_shapes(q, k, v, initial_state, cu_seqlens)
    check_tensors(a=a, b=b)
    for name, x in (("a", a), ("b", b)):
        if x.shape != k.shape:
            raise ValueError(f"{name} must have the shape of k, {list(k.shape)}, got {list(x.shape)}")
    check_decay(g, k)
    if scale is None:
        scale = k.shape[-1] ** -0.5
    form = pick_form(_FORMS, implementation, k, v, cu_seqlens)
    tokens = (q, k, v, a, b, g)
    return recur(_FORMS, form, tokens, scale, initial_state, output_final_state, cu_seqlens, chunk_size)
