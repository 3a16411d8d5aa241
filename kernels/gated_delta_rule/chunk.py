"""The delta rule, gated or not, a chunk of tokens at a time, with a hand-written backward.

Inside a chunk (arXiv 2406.06484 section 3, arXiv 2412.06464 section 3.3), with gamma the cumulative sum
of g from the chunk's start, `D_ij = exp(gamma_i - gamma_j)` for i >= j, and S the state at the start:

    L = strict_tril(K K^T * D)      P = scale tril(Q K^T * D)        pairs inside the chunk
    E = (I + L diag(beta))^-1 (V - diag(e^gamma) K S)                errors v_t - S_{t-1}^T k_t
    O = scale diag(e^gamma) Q S + P diag(beta) E
    S' = e^{gamma_C} S + (diag(beta e^{gamma_C - gamma}) K)^T E

Only `E` and `S'` need the loop over chunks; all else is one batched product over all chunks. K and Q are
kept stacked (`kq`, `[N, M, 2C, K]`), so that most products serve both. Where each channel decays for itself,
e^gamma is a vector and D goes into the products: what `kernels.decay` hides.
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
from asi_lab.kernels.decay import log_decay_gradient, make_decay


def chunk_delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None,
    beta: Tensor,
    scale: float,
    initial_state: Tensor | None,
    chunk_size: int | None,
) -> tuple[Tensor, Tensor]:
    """Shapes as in `gated_delta_rule`; without g the plain delta rule, with g `[B, T, H, K]` that of `kda`.

    Returns o `[B, T, H, V]` in the dtype of v and the last state `[B, H, K, V]` in the compute dtype.
    """
    C = fit_chunk(chunk_size, v)
    o, state = _ChunkDeltaRule.apply(q, k, v, g, beta, initial_state, scale, C)  # type: ignore[no-untyped-call]
    return o, state


class _ChunkDeltaRule(torch.autograd.Function):
    """Both directions of `chunk_delta_rule`; saves one state a chunk and the pairs inside the chunks."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        g: Tensor | None,
        beta: Tensor,
        initial_state: Tensor | None,
        scale: float,
        C: int,
    ) -> tuple[Tensor, Tensor]:
        B, T, H, K = q.shape
        V, M, N = v.shape[-1], B * H, -(-T // C)
        values = to_chunks(v, C)
        kq = values.new_empty(N, M, 2 * C, K)
        keys = to_chunks(k, C, out=kq[:, :, :C])
        to_chunks(q, C, out=kq[:, :, C:]).mul_(scale)
        betas = to_chunks(beta, C)
        decay = make_decay(g, values)
        kq_start = decay.scale_from_start(kq)
        k_end = decay.scale_to_end(keys * betas.unsqueeze(-1))

        pairs = _without_self(decay.products(kq, keys))
        inverse = unit_lower_inverse((pairs[:, :, :C] * betas.unsqueeze(-2)).flatten(0, 1)).view(N, M, C, C)

        states = values.new_empty(N + 1, M, K, V)
        states[0] = first_state(initial_state, k, v).reshape(M, K, V)
        errors = torch.empty_like(values)
        for n in range(N):
            unexplained = torch.baddbmm(values[n], kq_start[n, :, :C], states[n], alpha=-1)
            torch.bmm(inverse[n], unexplained, out=errors[n])
            kept = decay.keep(states[n], n)
            torch.baddbmm(kept, k_end[n].mT, errors[n], out=states[n + 1])

        o = torch.matmul(kq_start[:, :, C:], states[:-1])
        add_product(o, pairs[:, :, C:], errors * betas.unsqueeze(-1))

        ctx.save_for_backward(g, initial_state, kq, betas, pairs, inverse, states, errors, *decay.saved)
        ctx.decay, ctx.device = type(decay), v.device.type
        ctx.set_materialize_grads(False)
        ctx.scale, ctx.shape, ctx.dtypes = scale, (B, T, H), (q.dtype, k.dtype, v.dtype, beta.dtype)
        return from_chunks(o, (B, T, H), v.dtype), states[-1].view(B, H, K, V).clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_o: Tensor | None, d_final: Tensor | None) -> tuple[Tensor | None, ...]:
        with torch.autocast(ctx.device, enabled=False):
            return _backward(ctx, d_o, d_final)


def _backward(ctx: Any, d_o: Tensor | None, d_final: Tensor | None) -> tuple[Tensor | None, ...]:
    """Gradients in the order of `forward`'s arguments. `reads` stacks the gradients of what keys read
    from the memory (the negative gradient of V) and of what queries read (the gradient of O)."""
    g, initial_state, kq, betas, pairs, inverse, states, errors, *decay = ctx.saved_tensors
    decay = ctx.decay(*decay)
    N, M, C, V = errors.shape
    keys, beta_column = kq[:, :, :C], betas.unsqueeze(-1)
    kq_start = decay.scale_from_start(kq)
    k_end = decay.scale_to_end(keys * beta_column)

    reads = errors.new_zeros(N, M, 2 * C, V)
    if d_o is not None:
        to_chunks(d_o, C, out=reads[:, :, C:])
    d_errors = torch.matmul(pairs[:, :, C:].mT, reads[:, :, C:]).mul_(beta_column)
    d_values = torch.empty_like(errors)
    d_states = torch.empty_like(states)
    d_states[N] = 0 if d_final is None else d_final.reshape(states[N].shape)
    for n in reversed(range(N)):
        d_error = torch.baddbmm(d_errors[n], k_end[n], d_states[n + 1])
        torch.bmm(inverse[n].mT, d_error, out=d_values[n])
        torch.neg(d_values[n], out=reads[n, :, :C])
        kept = decay.keep(d_states[n + 1], n)
        torch.baddbmm(kept, kq_start[n].mT, reads[n], out=d_states[n])

    d_pairs = torch.matmul(reads, errors.mT)
    d_kq = decay.scale_from_start(torch.matmul(reads, states[:-1].mT))
    d_k = decay.scale_to_end(torch.matmul(errors, d_states[1:].mT))
    per_pair, per_key = d_pairs * pairs, decay.resolve(keys * d_k)
    d_beta = per_pair.sum(-2) + per_key.sum(-1)
    per_pair, per_key = per_pair.mul_(betas.unsqueeze(-2)), per_key.mul_(beta_column)
    d_k.mul_(beta_column)
    _without_self(d_pairs.mul_(betas.unsqueeze(-2)))
    weighted = (per_pair, per_key) if ctx.needs_input_grad[3] else None
    d_g = decay.backward(d_pairs, kq, keys, d_kq, d_k, states[:-1], d_states[1:], weighted)
    d_k.add_(d_kq[:, :, :C])
    d_q = d_kq[:, :, C:].mul_(ctx.scale)
    d_initial = None
    if initial_state is not None:
        d_initial = d_states[0].view_as(initial_state).to(initial_state.dtype)
    chunked = (d_q, d_k, d_values, d_beta)
    d_q, d_k, d_v, d_beta = (from_chunks(x, ctx.shape, t) for x, t in zip(chunked, ctx.dtypes, strict=True))
    return d_q, d_k, d_v, log_decay_gradient(d_g, g), d_beta, d_initial, None, None


def _without_self(pairs: Tensor) -> Tensor:
    """Key-key and query-key pairs, stacked in `[N, M, 2C, C]`, without those of a key with itself; a query
    keeps that with its own key. In place."""
    pairs[:, :, : pairs.shape[-1]].diagonal(dim1=-2, dim2=-1).zero_()
    return pairs
