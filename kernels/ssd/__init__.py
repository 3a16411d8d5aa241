"""State space duality: the recurrence of Mamba-2 (arXiv 2405.21060)."""

import math

from torch import Tensor
from torch.nn import functional

from asi_lab.kernels.common import check_tensors, compute_dtype, count_sequences
from asi_lab.kernels.fla_ops import fla_linear_attention
from asi_lab.kernels.foreign import drop_in
from asi_lab.kernels.linear_attention.chunk import chunk_linear_attention
from asi_lab.kernels.recurrence import Forms, Implementation, pick_form, recur
from asi_lab.kernels.ssd.naive import naive_ssd


@drop_in
def ssd(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
    initial_states: Tensor | None = None,
    return_final_states: bool = False,
    cu_seqlens: Tensor | None = None,
    *,
    implementation: Implementation = "auto",
    chunk_size: int | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Decay and add for a step of length dt, read, skip: `S <- e^(A dt) S + dt x B^T`, `y = S C + D x`.

    x is `[B, T, H, P]`, dt `[B, T, H]`, A `[H]` (negative), B and C `[B, T, G, N]`: G divides H, and a group
    serves H / G heads in a row. D is `[H]` or `[H, P]`, `initial_states` `[B, H, P, N]`. `dt_bias` `[H]` is
    added to dt, then `dt_softplus` takes the softplus. Names as in mamba_ssm's `mamba_chunk_scan_combined`.

    This is linear attention with C as query, B as key, dt x as value and A dt as logarithm of the decay.
    `cu_seqlens` (states `[sequences, H, P, N]`) and the types are as in `delta_rule`.

    Returns y `[B, T, H, P]` in x's dtype and the last state `[B, H, P, N]` (None unless asked for).
    Takes that function's other keywords too, or says what to do instead (`kernels.foreign`). Raises
    ValueError for what is no tensor and for shapes that do not fit.
    """
    _check(x, dt, A, B, C, D, dt_bias, initial_states, cu_seqlens)
    H, dtype = x.shape[2], compute_dtype(x)
    dt = dt.to(dtype)
    if dt_bias is not None:
        dt = dt + dt_bias
    if dt_softplus:
        dt = functional.softplus(dt)
    form = pick_form(_FORMS, implementation, B, x, cu_seqlens)
    tokens: tuple[Tensor, ...] = (C, B, x.to(dtype), dt, A.expand(dt.shape))
    if form != "naive":
        value = x * dt.unsqueeze(-1)
        tokens = (_to_heads(C, H), _to_heads(B, H), value.to(x.dtype) if form == "fla" else value, A * dt)
    state = None if initial_states is None else initial_states.mT
    y, state = recur(_FORMS, form, tokens, 1.0, state, return_final_states, cu_seqlens, chunk_size)
    if D is not None:
        y = y + x * (D.unsqueeze(-1) if D.dim() == 1 else D)
    return y.to(x.dtype), None if state is None else state.mT


_FORMS = Forms(naive_ssd, chunk_linear_attention, fla_linear_attention, fla_widest=math.inf)


def _to_heads(x: Tensor, H: int) -> Tensor:
    """Groups `[B, T, G, N]` to heads `[B, T, H, N]`: a view for a single group."""
    B, T, G, N = x.shape
    return x.unsqueeze(3).expand(B, T, G, H // G, N).reshape(B, T, H, N)


def _check(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    dt_bias: Tensor | None,
    initial_states: Tensor | None,
    cu_seqlens: Tensor | None,
) -> None:
    optional = {"D": D, "dt_bias": dt_bias, "initial_states": initial_states}
    check_tensors(x=x, dt=dt, A=A, B=B, C=C, **{n: y for n, y in optional.items() if y is not None})
    if x.dim() != 4 or 0 in x.shape:
        raise ValueError(f"x must be [B, T, H, P] and not empty, got {list(x.shape)}")
    batch, T, H, P = x.shape
    if B.dim() != 4 or B.shape[:2] != x.shape[:2] or 0 in B.shape or H % B.shape[2]:
        wanted = f"[B, T, G, N] with [B, T] = {[batch, T]} and G a divisor of H = {H}"
        raise ValueError(f"B must be {wanted}, got {list(B.shape)}")
    expected: dict[str, tuple[Tensor | None, list[list[int]]]] = {
        "C": (C, [list(B.shape)]),
        "dt": (dt, [[batch, T, H]]),
        "A": (A, [[H]]),
        "D": (D, [[H], [H, P]]),
        "dt_bias": (dt_bias, [[H]]),
        "initial_states": (initial_states, [[count_sequences(batch, cu_seqlens), H, P, B.shape[3]]]),
    }
    for name, (value, shapes) in expected.items():
        if value is not None and list(value.shape) not in shapes:
            wanted = " or ".join(map(str, shapes))
            raise ValueError(f"{name} must have the shape {wanted}, got {list(value.shape)}")
