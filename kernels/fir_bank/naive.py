"""Several filters over one input, one filter and one tap at a time: the readable truth."""

from collections.abc import Sequence

import torch
from torch import Tensor

from asi_lab.kernels.common import compute_dtype
from asi_lab.kernels.short_convolution.sequences import sequence_bounds


def naive_fir_bank(x: Tensor, weights: Sequence[Tensor], cu_seqlens: Tensor | None) -> tuple[Tensor, ...]:
    """x `[B, T, D]`, weights `[D, W_i]` each; returns as many outputs, `[B, T, D]` in x's dtype."""
    bounds = sequence_bounds(cu_seqlens, x.shape[1])
    sequences = [x[:, begin:end].to(compute_dtype(x)) for begin, end in bounds]
    return tuple(
        torch.cat([_filter(part, weight) for part in sequences], 1).to(x.dtype) for weight in weights
    )


def _filter(x: Tensor, weight: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    for shift in range(min(weight.shape[1], x.shape[1])):
        before = torch.cat((torch.zeros_like(x[:, :shift]), x[:, : x.shape[1] - shift]), 1)
        y = y + before * weight[:, -1 - shift].to(x.dtype)
    return y
