"""The delta rule with a diagonal plus low rank transition, a chunk of tokens at a time, with a hand-written
backward.

Token i reads `u_i = S_(i-1)^T a_i` before it decays the memory. With gamma the cumulative sum of g from the
chunk's start, `D_ij = exp(gamma_i - gamma_j)` for i >= j, and S the state at the start, a chunk is

    U = (I - L_b)^-1 (L_k V + A_start S)                              what the a read
    O = scale diag(e^gamma) Q S + scale tril(Q B^T * D) U + scale tril(Q K^T * D) V
    S' = e^{gamma_C} S + (diag(e^{gamma_C - gamma}) B)^T U + (diag(e^{gamma_C - gamma}) K)^T V

where a_i meets what token i - 1 left: `L_b,ij = a_i b_j exp(gamma_(i-1) - gamma_j)` for i > j, L_k likewise
with k_j, and `A_start,i = a_i e^gamma_(i-1)`. So the a are moved up by one token: then they decay as queries
do, are stacked with these (`lefts`), and `kernels.decay` serves both; what is made of them is moved down
again. The first a of a chunk meets S as it is. B and K are stacked too (`rights`), and so are U and V
(`written`): all `[N, M, 2C, ...]`.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from asi_lab.kernels.common import (
    add_product,
    first_state,
    fit_chunk,
    from_chunks,
    to_chunks,
    unit_lower_inverse,
)
from asi_lab.kernels.decay import Decay, log_decay_gradient, make_decay


def chunk_dplr_delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    b: Tensor,
    g: Tensor | None,
    scale: float,
    initial_state: Tensor | None,
    chunk_size: int | None,
) -> tuple[Tensor, Tensor]:
    """Shapes as in `dplr_delta_rule`.

    Returns o `[B, T, H, V]` in the dtype of v and the last state `[B, H, K, V]` in the compute dtype.
    """
    C = fit_chunk(chunk_size, v)
    o, state = _ChunkDPLR.apply(q, k, v, a, b, g, initial_state, scale, C)  # type: ignore[no-untyped-call]
    return o, state


class _ChunkDPLR(torch.autograd.Function):
    """Both directions of `chunk_dplr_delta_rule`; saves one state a chunk and the pairs inside the chunks."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        a: Tensor,
        b: Tensor,
        g: Tensor | None,
        initial_state: Tensor | None,
        scale: float,
        C: int,
    ) -> tuple[Tensor, Tensor]:
        B, T, H, K = q.shape
        readers = to_chunks(a, C)
        N, M, V = readers.shape[0], B * H, v.shape[-1]
        first = readers[:, :, :1].clone()
        lefts, rights = readers.new_empty(2, N, M, 2 * C, K).unbind()
        lefts[:, :, :C] = _up(readers)
        to_chunks(q, C, out=lefts[:, :, C:]).mul_(scale)
        to_chunks(b, C, out=rights[:, :, :C])
        to_chunks(k, C, out=rights[:, :, C:])
        written = readers.new_empty(N, M, 2 * C, V)
        values = to_chunks(v, C, out=written[:, :, C:])
        decay = make_decay(g, readers)
        from_start, to_end = _from_start(decay, lefts, first), decay.scale_to_end(rights)

        pairs = decay.products(lefts, rights)
        inverse = unit_lower_inverse(_down(pairs[:, :, :C, :C]).neg_().flatten(0, 1)).view(N, M, C, C)
        of_values = _down(torch.matmul(pairs[:, :, :C, C:], values))

        states = readers.new_empty(N + 1, M, K, V)
        states[0] = first_state(initial_state, k, v).reshape(M, K, V)
        for n in range(N):
            read = torch.baddbmm(of_values[n], from_start[n, :, :C], states[n])
            torch.bmm(inverse[n], read, out=written[n, :, :C])
            kept = decay.keep(states[n], n)
            torch.baddbmm(kept, to_end[n].mT, written[n], out=states[n + 1])

        o = torch.matmul(from_start[:, :, C:], states[:-1])
        add_product(o, pairs[:, :, C:], written)

        ctx.save_for_backward(
            g, initial_state, first, lefts, rights, pairs, inverse, states, written, *decay.saved
        )
        ctx.decay, ctx.device = type(decay), v.device.type
        ctx.set_materialize_grads(False)
        ctx.scale, ctx.shape, ctx.dtypes = scale, (B, T, H), tuple(x.dtype for x in (q, k, v, a, b))
        return from_chunks(o, (B, T, H), v.dtype), states[-1].view(B, H, K, V).clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_o: Tensor | None, d_final: Tensor | None) -> tuple[Tensor | None, ...]:
        with torch.autocast(ctx.device, enabled=False):
            return _backward(ctx, d_o, d_final)


def _backward(ctx: Any, d_o: Tensor | None, d_final: Tensor | None) -> tuple[Tensor | None, ...]:
    """Gradients in the order of `forward`'s arguments. `reads` stacks the gradients of what the a read from
    the memory, `L_k V + A_start S`, and of what the queries read, O."""
    g, initial_state, first, lefts, rights, pairs, inverse, states, written, *decay = ctx.saved_tensors
    decay = ctx.decay(*decay)
    N, _, C, _ = inverse.shape
    from_start, to_end = _from_start(decay, lefts, first), decay.scale_to_end(rights)

    reads = torch.zeros_like(written)
    if d_o is not None:
        to_chunks(d_o, C, out=reads[:, :, C:])
    d_written = torch.matmul(pairs[:, :, C:].mT, reads[:, :, C:])
    d_states = torch.empty_like(states)
    d_states[N] = 0 if d_final is None else d_final.reshape(states[N].shape)
    for n in reversed(range(N)):
        d_written[n].baddbmm_(to_end[n], d_states[n + 1])
        torch.bmm(inverse[n].mT, d_written[n, :, :C], out=reads[n, :, :C])
        kept = decay.keep(d_states[n + 1], n)
        torch.baddbmm(kept, from_start[n].mT, reads[n], out=d_states[n])

    d_first = torch.matmul(reads[:, :, :1], states[:-1].mT)
    reads[:, :, :C] = _up(reads[:, :, :C])
    d_v = torch.matmul(pairs[:, :, :C, C:].mT, reads[:, :, :C]).add_(d_written[:, :, C:])
    d_pairs = torch.matmul(reads, written.mT)
    d_lefts = decay.scale_from_start(torch.matmul(reads, states[:-1].mT))
    d_rights = decay.scale_to_end(torch.matmul(written, d_states[1:].mT))
    weighted = (d_pairs * pairs, decay.resolve(rights * d_rights)) if ctx.needs_input_grad[5] else None
    d_g = decay.backward(d_pairs, lefts, rights, d_lefts, d_rights, states[:-1], d_states[1:], weighted)
    d_a, d_q = _down(d_lefts[:, :, :C], d_first), d_lefts[:, :, C:].mul_(ctx.scale)
    d_b, d_k = d_rights[:, :, :C], d_rights[:, :, C:]
    d_initial = None
    if initial_state is not None:
        d_initial = d_states[0].view_as(initial_state).to(initial_state.dtype)
    chunked = zip((d_q, d_k, d_v, d_a, d_b), ctx.dtypes, strict=True)
    d_q, d_k, d_v, d_a, d_b = (from_chunks(x, ctx.shape, dtype) for x, dtype in chunked)
    return d_q, d_k, d_v, d_a, d_b, log_decay_gradient(d_g, g), d_initial, None, None


def _from_start(decay: Decay, lefts: Tensor, first: Tensor) -> Tensor:
    """What reads the state at the chunk's start, `[N, M, 2C, K]`: the a, in their own places, and queries."""
    C = lefts.shape[2] // 2
    scaled = decay.scale_from_start(lefts)
    return torch.cat((_down(scaled[:, :, :C], first), scaled[:, :, C:]), 2)


def _up(x: Tensor) -> Tensor:
    """Tokens `[N, M, C, D]` one place earlier, zeros in the last."""
    return torch.cat((x[:, :, 1:], torch.zeros_like(x[:, :, :1])), 2)


def _down(x: Tensor, first: Tensor | None = None) -> Tensor:
    """Tokens `[N, M, C, D]` one place later, `first` or zeros in the first."""
    return torch.cat((torch.zeros_like(x[:, :, :1]) if first is None else first, x[:, :, :-1]), 2)
