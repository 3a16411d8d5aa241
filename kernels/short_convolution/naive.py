"""Causal depthwise convolution, one token at a time: the readable truth."""

import torch
from torch import Tensor
from torch.nn import functional

from asi_lab.kernels.common import compute_dtype
from asi_lab.kernels.short_convolution.sequences import sequence_bounds


def naive_short_convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, cu_seqlens: Tensor | None
) -> Tensor:
    """Keep the last W tokens of a sequence and weigh them. x `[B, T, D]`, weight `[D, W]`, bias `[D]`."""
    B, T, D = x.shape
    outputs = []
    for begin, end in sequence_bounds(cu_seqlens, T):
        cache = x.new_zeros(B, D, weight.shape[1])
        for t in range(begin, end):
            y, cache = convolution_step(x[:, t], cache, weight, bias, silu)
            outputs.append(y)
    return torch.stack(outputs, 1) if outputs else torch.zeros_like(x)


def convolution_step(
    x: Tensor, cache: Tensor, weight: Tensor, bias: Tensor | None, silu: bool
) -> tuple[Tensor, Tensor]:
    """One token x `[B, D]` after the W before it, cache `[B, D, W]`: y `[B, D]` and the next cache."""
    cache = torch.cat((cache[:, :, 1:], x.unsqueeze(-1).to(cache.dtype)), dim=-1)
    dtype = compute_dtype(x)
    y = (cache.to(dtype) * weight.to(dtype)).sum(-1)
    if bias is not None:
        y = y + bias
    return (functional.silu(y) if silu else y).to(x.dtype), cache
