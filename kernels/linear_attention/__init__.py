"""Linear attention (arXiv 2006.16236), with an optional decay: simple GLA, GLA (arXiv 2312.06635)."""

import math

import torch
from torch import Tensor

from asi_lab.kernels.common import check_decay, check_shapes, compute_dtype
from asi_lab.kernels.feature_map import feature_map as map_features
from asi_lab.kernels.fla_ops import fla_linear_attention
from asi_lab.kernels.foreign import drop_in
from asi_lab.kernels.linear_attention.chunk import chunk_linear_attention
from asi_lab.kernels.linear_attention.naive import naive_linear_attention
from asi_lab.kernels.recurrence import Forms, Implementation, pick_form, recur

_FORMS = Forms(naive_linear_attention, chunk_linear_attention, fla_linear_attention, fla_widest=math.inf)

EPS = 1e-10
"""Added to the normaliser, so that a query that meets no key reads 0."""


@drop_in
def linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None = None,
    scale: float | None = None,
    initial_state: Tensor | None = None,
    output_final_state: bool = False,
    cu_seqlens: Tensor | None = None,
    *,
    feature_map: str | None = None,
    normalize: bool = False,
    implementation: Implementation = "auto",
    chunk_size: int | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Decay, add, read: `S <- e^g S + k v^T`, `o = scale S^T q`.

    q, k are `[B, T, H, K]`, v `[B, T, H, V]`, g the logarithm of the decay, at most 0: `[B, T, H]`, or
    `[B, T, H, K]` for a decay of each key channel, or None for none. `initial_state` is `[B, H, K, V]`.
    `scale` defaults to `K ** -0.5`. `cu_seqlens` and the types are as in `delta_rule`.

    `feature_map` is the name of a map (see `kernels.feature_map`) that q and k go through first; K is the
    width after it, for g, the states and `scale` too.

    With `normalize=False`, as by default, o is the sum of the values as read, and only as large as queries
    and keys make it: a norm follows, or a `scale` that fits. `normalize=True` divides o by
    `scale q . z + 1e-10`, where z is the sum of the keys, decayed as S is; with a map that has no negative
    values o is then an average of values. z is carried as one more column of the memory (a value that is
    always 1), so that the states are `[B, H, K, V + 1]`. In flash-linear-attention `chunk_linear_attn`
    normalises unless told not to, `fused_recurrent_linear_attn` and the GLAs do not, and states are pairs.

    Returns o `[B, T, H, V]` in v's dtype and the last state (None unless asked for).
    Takes the keywords of flash-linear-attention's functions too, or says what to do instead
    (`kernels.foreign`). Raises ValueError for what is no tensor and for shapes that do not fit.
    """
    check_shapes(q, k, v, None, cu_seqlens)
    if feature_map is not None:
        q, k = map_features(q, feature_map), map_features(k, feature_map)
    check_decay(g, k)
    _check_state(initial_state)
    form, dtype = pick_form(_FORMS, implementation, k, v, cu_seqlens), v.dtype
    if normalize:
        # In the compute dtype, so that o is not rounded before the division; fla takes what it computes in.
        v = torch.cat((v, torch.ones_like(v[..., :1])), -1).to(dtype if form == "fla" else compute_dtype(v))
    check_shapes(q, k, v, initial_state, cu_seqlens)
    if scale is None:
        scale = k.shape[-1] ** -0.5
    tokens = (q, k, v, g)
    o, state = recur(_FORMS, form, tokens, scale, initial_state, output_final_state, cu_seqlens, chunk_size)
    if normalize:
        o = o.to(compute_dtype(o))
        o = (o[..., :-1] / (o[..., -1:] + EPS)).to(dtype)
    return o, state


def _check_state(initial_state: object) -> None:
    """Raise ValueError for flash-linear-attention's pair of states."""
    if isinstance(initial_state, tuple | list):
        raise ValueError(
            "initial_state must be one tensor, [B, H, K, V + 1] with normalize=True, got a pair; "
            "of a pair (kv, z) it is torch.cat((kv, z.squeeze(1).unsqueeze(-1)), -1)"
        )
