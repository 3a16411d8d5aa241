"""Several filters over one input as shifted multiply-adds, with a hand-written backward.

The filters share the blocks of tokens: while a block of the input is in the cache all of them read it,
and all add to its gradient there.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from asi_lab.kernels.common import compute_dtype
from asi_lab.kernels.short_convolution.shift import (
    add_taps_gradient,
    convolve_block,
    from_taps,
    input_gradient,
    split_blocks,
    to_taps,
)


def shift_fir_bank(x: Tensor, weights: Sequence[Tensor], cu_seqlens: Tensor | None) -> tuple[Tensor, ...]:
    """x `[B, T, D]`, weights `[D, W_i]` each; returns as many outputs, `[B, T, D]` in x's dtype."""
    outputs: tuple[Tensor, ...] = _ShiftBank.apply(x, cu_seqlens, *weights)  # type: ignore[no-untyped-call]
    return outputs


class _ShiftBank(torch.autograd.Function):
    """Saves what it was given and nothing else."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cu_seqlens: Tensor | None, *weights: Tensor) -> tuple[Tensor, ...]:
        dtype = compute_dtype(x)
        inputs = x.to(dtype)
        taps = [to_taps(weight, dtype) for weight in weights]
        outputs = [torch.empty(x.shape, dtype=dtype, device=x.device) for _ in weights]
        ctx.blocks = split_blocks(x, cu_seqlens)
        for block in ctx.blocks:
            for filter_taps, y in zip(taps, outputs, strict=True):
                convolve_block(inputs, filter_taps, block, block.of(y))
        ctx.save_for_backward(x, *weights)
        return tuple(y.to(x.dtype) for y in outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *d_outputs: Tensor) -> tuple[Tensor | None, ...]:
        x, *weights = ctx.saved_tensors
        dtype = compute_dtype(x)
        inputs = x.to(dtype)
        taps = [to_taps(weight, dtype) for weight in weights]
        d_x, d_taps = torch.empty_like(inputs), [torch.zeros_like(each) for each in taps]
        gradients = [d_y.to(dtype) for d_y in d_outputs]
        for block in ctx.blocks:
            for i, (filter_taps, d_filter_taps, d_y) in enumerate(zip(taps, d_taps, gradients, strict=True)):
                input_gradient(d_x, d_y, filter_taps, block, add=i > 0)
                add_taps_gradient(d_filter_taps, d_y, inputs, block)
        d_weights = (from_taps(each, weight) for each, weight in zip(d_taps, weights, strict=True))
        return d_x.to(x.dtype), None, *d_weights
