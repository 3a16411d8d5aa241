"""Causal depthwise convolution as W shifted multiply-adds over the whole sequence.

On a CPU this is three to six times faster than `conv1d` (whose depthwise backward is slow) for the
usual W = 4, and still faster than Toeplitz products or FFT at W = 64.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from asi_lab.kernels.common import compute_dtype


def shift_short_convolution(x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool) -> Tensor:
    """x `[B, T, D]`, weight `[D, W]`, bias `[D]` or None; returns `[B, T, D]` in x's dtype."""
    y: Tensor = _ShiftConvolution.apply(x, weight, bias, silu)  # type: ignore[no-untyped-call]
    return y


class _ShiftConvolution(torch.autograd.Function):
    """Saves input, weight and, for the activation's slope, the result before the activation."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool) -> Tensor:
        dtype = compute_dtype(x)
        taps = _taps(weight, dtype)
        inputs = x.to(dtype)
        y = inputs * taps[0]
        if bias is not None:
            y += bias
        for shift in _shifts(x, taps):
            y[:, shift:].addcmul_(inputs[:, :-shift], taps[shift])
        ctx.save_for_backward(x, weight, bias, y if silu else None)
        return (functional.silu(y) if silu else y).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_y: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, y = ctx.saved_tensors
        dtype = compute_dtype(x)
        taps = _taps(weight, dtype)
        inputs, d_y = x.to(dtype), d_y.to(dtype)
        if y is not None:
            d_y = torch.ops.aten.silu_backward(d_y, y)
        d_x = d_y * taps[0]
        d_taps = torch.zeros_like(taps)
        d_taps[0] = (d_y * inputs).sum((0, 1))
        for shift in _shifts(x, taps):
            d_x[:, :-shift].addcmul_(d_y[:, shift:], taps[shift])
            d_taps[shift] = (d_y[:, shift:] * inputs[:, :-shift]).sum((0, 1))
        d_weight = d_taps.flip(0).t().to(weight.dtype)
        d_bias = None if bias is None else d_y.sum((0, 1)).to(bias.dtype)
        return d_x.to(x.dtype), d_weight, d_bias, None


def _taps(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """`[D, W]` to contiguous `[W, D]`, row w for the token w steps back."""
    return weight.to(dtype).t().flip(0).contiguous()


def _shifts(x: Tensor, taps: Tensor) -> range:
    """The steps back that reach any token of the sequence."""
    return range(1, min(taps.shape[0], x.shape[1]))
