"""Causal depthwise convolution over time, for whole sequences and token by token."""

from typing import Literal

import torch
from torch import Tensor

from asi_lab.kernels.common import check_tensors, choose, is_silu
from asi_lab.kernels.foreign import drop_in
from asi_lab.kernels.short_convolution.naive import convolution_step, naive_short_convolution
from asi_lab.kernels.short_convolution.sequences import check_cu_seqlens
from asi_lab.kernels.short_convolution.shift import shift_short_convolution


@drop_in
def short_convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: Literal["silu", "swish"] | None = None,
    cu_seqlens: Tensor | None = None,
    *,
    implementation: Literal["auto", "naive", "shift", "triton"] = "auto",
) -> Tensor:
    """`y_t = sum_w weight[:, W - 1 - w] * x_{t - w} + bias`, then the activation; inputs before 0 are 0.

    x is `[B, T, D]`, weight `[D, W]` or, as of a Conv1d, `[D, 1, W]` (its last column meets the current
    token), bias `[D]`. "swish" is another word for "silu". Any W; the time grows with W, and no result
    depends on a later token, not even by rounding (as it would by FFT).
    With `cu_seqlens` `[N + 1]` the one row of x holds N sequences, the i-th from token `cu_seqlens[i]` up
    to `cu_seqlens[i + 1]`, and each is convolved by itself.

    Returns `[B, T, D]` in x's dtype; flash-linear-attention's `causal_conv1d` returns a pair always, this
    with `output_final_state=True` alone. Takes its other keywords too, as `residual` and `initial_state`, or
    says what to do instead (`kernels.foreign`). Raises ValueError for what is no tensor and for shapes that
    do not fit.
    """
    check_tensors(x=x)
    if x.dim() != 3:
        raise ValueError(f"x must be [B, T, D], got {list(x.shape)}")
    weight = check_parameters(x, weight, bias)
    check_cu_seqlens(cu_seqlens, x)
    form = choose(implementation, x, ("naive", "shift", "triton"), cpu="shift", gpu="triton")
    silu = is_silu(activation)
    with torch.autocast(x.device.type, enabled=False):
        if form == "triton":
            from asi_lab.kernels.short_convolution.triton import triton_short_convolution

            return triton_short_convolution(x, weight, bias, silu, cu_seqlens)
        convolve = shift_short_convolution if form == "shift" else naive_short_convolution
        return convolve(x, weight, bias, silu, cu_seqlens)


@drop_in
def short_convolution_step(
    x: Tensor,
    cache: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: Literal["silu", "swish"] | None = None,
) -> tuple[Tensor, Tensor]:
    """One more token of `short_convolution`, from a cache of the last W inputs.

    x is `[B, D]`, cache `[B, D, W]` with the latest input last and zeros before the first, weight
    `[D, W]`, bias `[D]`. Returns y `[B, D]` in x's dtype and the next cache in that of the cache, which
    stays as it is; flash-linear-attention's `causal_conv1d_update` writes into it. Raises ValueError for what
    is no tensor and for shapes that do not fit.
    """
    check_tensors(x=x, cache=cache)
    if x.dim() != 2:
        raise ValueError(f"x must be [B, D], got {list(x.shape)}")
    weight = check_parameters(x, weight, bias)
    silu = is_silu(activation)
    if cache.shape != (*x.shape, weight.shape[1]):
        raise ValueError(f"cache must be [B, D, W] = {[*x.shape, weight.shape[1]]}, got {list(cache.shape)}")
    with torch.autocast(x.device.type, enabled=False):
        return convolution_step(x, cache, weight, bias, silu)


def check_parameters(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The weight as `[D, W]`. Raise ValueError, naming the argument, unless it and bias fit x `[..., D]`."""
    D = x.shape[-1]
    check_tensors(weight=weight)
    if weight.dim() == 3 and weight.shape[1] == 1:
        weight = weight.squeeze(1)
    if weight.dim() != 2 or weight.shape[0] != D or weight.shape[1] < 1:
        raise ValueError(f"weight must be [D, W] or [D, 1, W] with D = {D}, got {list(weight.shape)}")
    if bias is not None:
        check_tensors(bias=bias)
        if bias.shape != (D,):
            raise ValueError(f"bias must be [D] = [{D}], got {list(bias.shape)}")
    return weight
