"""Causal depthwise convolution, one token at a time: the readable truth."""

import torch
from torch import Tensor
from torch.nn import functional

from asi_lab.kernels.common import compute_dtype


def naive_short_convolution(x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool) -> Tensor:
    """Keep the last W tokens in a window and weigh them. x `[B, T, D]`, weight `[D, W]`, bias `[D]`."""
    B, T, D = x.shape
    dtype = compute_dtype(x)
    window = torch.zeros(B, D, weight.shape[1], dtype=dtype, device=x.device)
    outputs = []
    for t in range(T):
        window = torch.cat((window[:, :, 1:], x[:, t, :, None].to(dtype)), dim=-1)
        y = (window * weight.to(dtype)).sum(-1)
        outputs.append(y if bias is None else y + bias)
    y = torch.stack(outputs, 1)
    return (functional.silu(y) if silu else y).to(x.dtype)
