"""Linear layer and cross-entropy, a chunk of tokens at a time, with gradients made in the forward pass.

The logits of a chunk become, in place, the gradient of the summed loss by themselves,

    d_logits = softmax(logits) - onehot(target)

from which the chunk's part of all gradients follows at once. So neither the logits nor their gradient ever
exist for more than one chunk. What the loss is multiplied with later (1 over the count of tokens, the
scale of a mixed-precision optimiser) is applied to the finished gradients in the backward pass, also
because `d_logits` keeps away from the smallest numbers of float16 that way.

The products are over a vocabulary filled up to a multiple of 8 with weights of zero: where a size is odd, as
that of GPT-2's vocabulary is, a GPU's library falls back to kernels that load one number at a time.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from asi_lab.kernels.common import compute_dtype

CPU_LOGITS = 2**21
"""Logits of a chunk on a CPU, roughly: more fall out of its caches, fewer make for slow matrix products."""

GPU_BYTES = 2**29
"""Bytes of a chunk's logits on a GPU: matrix products of thousands of tokens, small beside a model."""

Differentiate = Callable[[Tensor, Tensor, Tensor, float | None, bool], Tensor]
"""Losses `[C]` of logits `[C, V]`, target and counted `[C]`; with True, the logits become their gradient."""


def chunk_linear_cross_entropy(
    x: Tensor,
    target: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    counted: Tensor,
    count: Tensor | None,
    softcap: float | None,
    dtype: torch.dtype,
    chunk_size: int | None,
    by_triton: bool,
) -> Tensor:
    """Arguments as in `naive_linear_cross_entropy`; `dtype` is that of the products.

    Softmax and loss of a chunk are done by a Triton kernel or, in float32, by PyTorch.
    """
    if by_triton:
        from asi_lab.kernels.linear_cross_entropy.triton import triton_loss_and_gradient as differentiate
    else:
        differentiate = loss_and_gradient
    C = chunk_size or fit_chunk(len(weight), dtype, weight.device.type)
    wanted = [torch.is_grad_enabled() and p is not None and p.requires_grad for p in (x, weight, bias)]
    arguments = (counted, count, softcap, dtype, min(C, max(1, len(x))), differentiate, wanted)
    loss: Tensor = _LinearCrossEntropy.apply(x, weight, bias, target, *arguments)  # type: ignore[no-untyped-call]
    return loss


def fit_chunk(V: int, dtype: torch.dtype, device: str) -> int:
    """Tokens of a chunk, a power of two; `device` is the type of one, `dtype` that of the products."""
    if device == "cpu":
        fitting = min(512, max(128, CPU_LOGITS // V))
    else:
        fitting = max(128, GPU_BYTES // (V * dtype.itemsize))
    return 1 << fitting.bit_length() - 1


class _LinearCrossEntropy(torch.autograd.Function):
    """Saves the gradients of the summed loss."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        target: Tensor,
        counted: Tensor,
        count: Tensor | None,
        softcap: float | None,
        dtype: torch.dtype,
        C: int,
        differentiate: Differentiate,
        wanted: list[bool],
    ) -> Tensor:
        exact = torch.float64 if dtype == torch.float64 else torch.float32
        (N, D), V = x.shape, weight.shape[0]
        w, b = _filled(weight, dtype), None if bias is None else _filled(bias, dtype)
        losses = torch.empty(N, dtype=exact, device=x.device)
        # Rows that start at multiples of 128 bytes: products and kernels are much slower on odd rows.
        buffer = torch.empty(C, -(-V // 64) * 64, dtype=dtype, device=x.device)
        buffer[:, V:] = 0
        d_x = torch.empty(N, D, dtype=dtype, device=x.device) if wanted[0] else None
        d_weight = torch.zeros(len(w), D, dtype=exact, device=x.device) if wanted[1] else None
        d_bias = torch.zeros(len(w), dtype=exact, device=x.device) if wanted[2] else None
        for start in range(0, N, C):
            rows = slice(start, start + C)
            inputs = x[rows].to(dtype)
            logits = buffer[: len(inputs), : len(w)]
            if b is None:
                torch.mm(inputs, w.t(), out=logits)
            else:
                torch.addmm(b, inputs, w.t(), out=logits)
            losses[rows] = differentiate(logits[:, :V], target[rows], counted[rows], softcap, any(wanted))
            logits[:, V:] = 0
            if d_x is not None:
                torch.mm(logits, w, out=d_x[rows])
            if d_weight is not None and dtype == exact:
                d_weight.addmm_(logits.t(), inputs)
            elif d_weight is not None:
                d_weight += torch.mm(logits.t(), inputs)
            if d_bias is not None:
                d_bias += logits.sum(0, dtype=exact)
        ctx.save_for_backward(d_x, *(None if d is None else d[:V] for d in (d_weight, d_bias)), count)
        ctx.dtypes = x.dtype, weight.dtype, None if bias is None else bias.dtype
        total = losses.sum()
        return total if count is None else total / count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_loss: Tensor) -> tuple[Tensor | None, ...]:
        *gradients, count = ctx.saved_tensors
        # Of one dimension, so that float32 is the dtype of the product whatever that of the gradient.
        scale = (d_loss if count is None else d_loss / count.clamp(min=1)).reshape(1)
        scaled = (
            None if d is None else (d * scale).to(dtype)
            for d, dtype in zip(gradients, ctx.dtypes, strict=True)
        )
        return (*scaled, *[None] * 8)


def _filled(parameter: Tensor, dtype: torch.dtype) -> Tensor:
    """`[V, ...]` in that dtype, with rows of zeros up to a multiple of 8."""
    V, *rest = parameter.shape
    if V % 8 == 0:
        return parameter.to(dtype)
    filled = parameter.new_zeros(-(-V // 8) * 8, *rest, dtype=dtype)
    filled[:V] = parameter
    return filled


def loss_and_gradient(
    logits: Tensor, target: Tensor, counted: Tensor, softcap: float | None, gradient: bool
) -> Tensor:
    """The PyTorch form of `Differentiate`."""
    z = logits.to(compute_dtype(logits))
    bounded = None
    if softcap is not None:
        bounded = torch.tanh(z / softcap)
        z = bounded * softcap
    torch.log_softmax(z, 1, out=z)
    index = target.where(counted, 0)[:, None]
    loss = -z.gather(1, index)
    if gradient:
        z.exp_()
        z.scatter_(1, index, torch.expm1(-loss))
        if bounded is not None:
            z.mul_(bounded.square_().neg_().add_(1))
        # Not by a product: what is not a number in a token that does not count must not spread.
        if z.device.type != "cpu" or not bool(counted.all()):
            z.masked_fill_(~counted[:, None], 0)
        if z.data_ptr() != logits.data_ptr():
            logits.copy_(z)
    return loss.squeeze(1).where(counted, 0)
