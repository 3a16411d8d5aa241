"""Linear attention with an optional decay, a chunk of tokens at a time, with a hand-written backward.

Inside a chunk (arXiv 2312.06635 section 4), with gamma the cumulative sum of g from the chunk's start,
`D_ij = exp(gamma_i - gamma_j)` for i >= j, and S the state at the start:

    O = scale diag(e^gamma) Q S + scale tril(Q K^T * D) V
    S' = e^{gamma_C} S + (diag(e^{gamma_C - gamma}) K)^T V

Where each channel decays for itself, e^gamma is a vector and D goes into the product: what `kernels.decay`
hides.
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
)
from asi_lab.kernels.decay import log_decay_gradient, make_decay


def chunk_linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None,
    scale: float,
    initial_state: Tensor | None,
    chunk_size: int | None,
) -> tuple[Tensor, Tensor]:
    """Shapes as in `linear_attention`.

    Returns o `[B, T, H, V]` in the dtype of v and the last state `[B, H, K, V]` in the compute dtype.
    """
    C = fit_chunk(chunk_size, v)
    o, state = _ChunkLinearAttention.apply(q, k, v, g, initial_state, scale, C)  # type: ignore[no-untyped-call]
    return o, state


class _ChunkLinearAttention(torch.autograd.Function):
    """Both directions of `chunk_linear_attention`; saves one state a chunk and the pairs inside."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        g: Tensor | None,
        initial_state: Tensor | None,
        scale: float,
        C: int,
    ) -> tuple[Tensor, Tensor]:
        B, T, H, K = q.shape
        queries, keys, values = to_chunks(q, C).mul_(scale), to_chunks(k, C), to_chunks(v, C)
        N, M, _, V = values.shape
        decay = make_decay(g, values)
        pairs = decay.products(queries, keys)
        written = torch.matmul(decay.scale_to_end(keys).mT, values)
        states = values.new_empty(N + 1, M, K, V)
        states[0] = first_state(initial_state, k, v).reshape(M, K, V)
        for n in range(N):
            torch.add(decay.keep(states[n], n), written[n], out=states[n + 1])
        o = torch.matmul(decay.scale_from_start(queries), states[:-1])
        add_product(o, pairs, values)

        ctx.save_for_backward(g, initial_state, queries, keys, values, pairs, states, *decay.saved)
        ctx.decay, ctx.device = type(decay), v.device.type
        ctx.set_materialize_grads(False)
        ctx.scale, ctx.shape, ctx.dtypes = scale, (B, T, H), (q.dtype, k.dtype, v.dtype)
        return from_chunks(o, (B, T, H), v.dtype), states[-1].view(B, H, K, V).clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_o: Tensor | None, d_final: Tensor | None) -> tuple[Tensor | None, ...]:
        with torch.autocast(ctx.device, enabled=False):
            return _backward(ctx, d_o, d_final)


def _backward(ctx: Any, d_o: Tensor | None, d_final: Tensor | None) -> tuple[Tensor | None, ...]:
    """Gradients in the order of `forward`'s arguments."""
    g, initial_state, queries, keys, values, pairs, states, *decay = ctx.saved_tensors
    decay = ctx.decay(*decay)
    N, _, C, _ = values.shape
    reads = torch.zeros_like(values) if d_o is None else to_chunks(d_o, C)
    d_read = torch.matmul(decay.scale_from_start(queries).mT, reads)
    d_states = torch.empty_like(states)
    d_states[N] = 0 if d_final is None else d_final.reshape(states[N].shape)
    for n in reversed(range(N)):
        torch.add(decay.keep(d_states[n + 1], n), d_read[n], out=d_states[n])

    d_v = torch.matmul(decay.scale_to_end(keys), d_states[1:])
    add_product(d_v, pairs.mT, reads)
    d_pairs = torch.matmul(reads, values.mT)
    d_q = decay.scale_from_start(torch.matmul(reads, states[:-1].mT))
    d_k = decay.scale_to_end(torch.matmul(values, d_states[1:].mT))
    weighted = (d_pairs * pairs, decay.resolve(keys * d_k)) if ctx.needs_input_grad[3] else None
    d_g = decay.backward(d_pairs, queries, keys, d_q, d_k, states[:-1], d_states[1:], weighted)
    d_q.mul_(ctx.scale)
    d_initial = None
    if initial_state is not None:
        d_initial = d_states[0].view_as(initial_state).to(initial_state.dtype)
    chunked = (d_q, d_k, d_v)
    d_q, d_k, d_v = (from_chunks(x, ctx.shape, t) for x, t in zip(chunked, ctx.dtypes, strict=True))
    return d_q, d_k, d_v, log_decay_gradient(d_g, g), d_initial, None, None
