"""A bank of causal depthwise filters over one input."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from asi_lab.kernels.common import check_list, check_tensors, choose
from asi_lab.kernels.fir_bank.naive import naive_fir_bank
from asi_lab.kernels.fir_bank.shift import shift_fir_bank
from asi_lab.kernels.short_convolution.sequences import check_cu_seqlens


def fir_bank(
    x: Tensor,
    weights: Sequence[Tensor],
    cu_seqlens: Tensor | None = None,
    *,
    implementation: Literal["auto", "naive", "shift", "triton"] = "auto",
) -> tuple[Tensor, ...]:
    """`y_i,t = sum_w weights[i][:, W_i - 1 - w] * x_{t - w}` for all filters i; inputs before 0 are 0.

    x is `[B, T, D]` and each weight `[D, W_i]`, or x is `[B, T, H, V]` and each weight `[H * V, W_i]`; the
    last column of a weight meets the current token. With `cu_seqlens` `[N + 1]` the one row of x holds N
    sequences, the i-th from token `cu_seqlens[i]` up to `cu_seqlens[i + 1]`, that no filter mixes.

    Returns one output a filter, of x's shape and dtype. Raises ValueError for what is no tensor
    and for shapes that do not fit.
    """
    check_tensors(x=x)
    if x.dim() not in (3, 4):
        raise ValueError(f"x must be [B, T, D] or [B, T, H, V], got {list(x.shape)}")
    flat = x.flatten(2)
    D = flat.shape[-1]
    check_list("weights", weights)
    if len(weights) == 0:
        raise ValueError("weights must hold at least one filter, got none")
    for i, weight in enumerate(weights):
        if weight.dim() != 2 or weight.shape[0] != D or weight.shape[1] < 1:
            raise ValueError(f"weights[{i}] must be [D, W] with D = {D}, got {list(weight.shape)}")
    check_cu_seqlens(cu_seqlens, x)
    form = choose(implementation, x, ("naive", "shift", "triton"), cpu="shift", gpu="triton")
    with torch.autocast(x.device.type, enabled=False):
        if form == "triton":
            from asi_lab.kernels.fir_bank.triton import triton_fir_bank

            outputs = triton_fir_bank(flat, weights, cu_seqlens)
        else:
            outputs = (shift_fir_bank if form == "shift" else naive_fir_bank)(flat, weights, cu_seqlens)
    return tuple(y.view(x.shape) for y in outputs)
