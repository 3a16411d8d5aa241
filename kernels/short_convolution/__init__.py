"""Causal depthwise convolution over time, for whole sequences and token by token."""

from typing import Literal

import torch
from torch import Tensor

from asi_lab.kernels.common import choose
from asi_lab.kernels.short_convolution.naive import convolution_step, naive_short_convolution
from asi_lab.kernels.short_convolution.sequences import check_cu_seqlens
from asi_lab.kernels.short_convolution.shift import shift_short_convolution


def short_convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: Literal["silu"] | None = None,
    cu_seqlens: Tensor | None = None,
    *,
    implementation: Literal["auto", "naive", "shift", "triton"] = "auto",
) -> Tensor:
    """`y_t = sum_w weight[:, W - 1 - w] * x_{t - w} + bias`, then the activation; inputs before 0 are 0.

    x is `[B, T, D]`, weight `[D, W]` (its last column meets the current token), bias `[D]`. Any W; the
    time grows with W, and no result depends on a later token, not even by rounding (as it would by FFT).
    With `cu_seqlens` `[N + 1]` the one row of x holds N sequences, the i-th from token `cu_seqlens[i]` up
    to `cu_seqlens[i + 1]`, and each is convolved by itself.

    Returns `[B, T, D]` in x's dtype. Raises ValueError for shapes that do not fit.
    """
    if x.dim() != 3:
        raise ValueError(f"x must be [B, T, D], got {list(x.shape)}")
    check_parameters(x, weight, bias, activation)
    check_cu_seqlens(cu_seqlens, x)
    form = choose(implementation, x, ("naive", "shift", "triton"), cpu="shift", gpu="triton")
    silu = activation == "silu"
    with torch.autocast(x.device.type, enabled=False):
        if form == "triton":
            from asi_lab.kernels.short_convolution.triton import triton_short_convolution

            return triton_short_convolution(x, weight, bias, silu, cu_seqlens)
        convolve = shift_short_convolution if form == "shift" else naive_short_convolution
        return convolve(x, weight, bias, silu, cu_seqlens)


def short_convolution_step(
    x: Tensor,
    cache: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: Literal["silu"] | None = None,
) -> tuple[Tensor, Tensor]:
    """One more token of `short_convolution`, from a cache of the last W inputs.

    x is `[B, D]`, cache `[B, D, W]` with the latest input last and zeros before the first, weight
    `[D, W]`, bias `[D]`. Returns y `[B, D]` in x's dtype and the next cache in that of the cache, which
    stays as it is. Raises ValueError for shapes that do not fit.
    """
    if x.dim() != 2:
        raise ValueError(f"x must be [B, D], got {list(x.shape)}")
    check_parameters(x, weight, bias, activation)
    if cache.shape != (*x.shape, weight.shape[1]):
        raise ValueError(f"cache must be [B, D, W] = {[*x.shape, weight.shape[1]]}, got {list(cache.shape)}")
    with torch.autocast(x.device.type, enabled=False):
        return convolution_step(x, cache, weight, bias, activation == "silu")


def check_parameters(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None) -> None:
    """Raise ValueError, naming the argument, unless they fit x `[..., D]`."""
    D = x.shape[-1]
    if weight.dim() != 2 or weight.shape[0] != D or weight.shape[1] < 1:
        raise ValueError(f"weight must be [D, W] with D = {D}, got {list(weight.shape)}")
    if bias is not None and bias.shape != (D,):
        raise ValueError(f"bias must be [D] = [{D}], got {list(bias.shape)}")
    if activation not in (None, "silu"):
        raise ValueError(f"activation must be None or 'silu', got {activation!r}")
