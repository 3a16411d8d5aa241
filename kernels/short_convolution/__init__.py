"""Causal depthwise convolution over time."""

from typing import Literal

from torch import Tensor

from asi_lab.kernels.common import choose
from asi_lab.kernels.short_convolution.naive import naive_short_convolution
from asi_lab.kernels.short_convolution.shift import shift_short_convolution


def short_convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: Literal["silu"] | None = None,
    *,
    implementation: Literal["auto", "naive", "shift"] = "auto",
) -> Tensor:
    """`y_t = sum_w weight[:, W - 1 - w] * x_{t - w} + bias`, then the activation; inputs before 0 are 0.

    x is `[B, T, D]`, weight `[D, W]` (its last column meets the current token), bias `[D]`. Any W; the
    time grows with W, and no result depends on a later token, not even by rounding (as it would by FFT).
    Returns `[B, T, D]` in x's dtype. Raises ValueError for shapes that do not fit.
    """
    if x.dim() != 3:
        raise ValueError(f"x must be [B, T, D], got {list(x.shape)}")
    D = x.shape[-1]
    if weight.dim() != 2 or weight.shape[0] != D or weight.shape[1] < 1:
        raise ValueError(f"weight must be [D, W] with D = {D}, got {list(weight.shape)}")
    if bias is not None and bias.shape != (D,):
        raise ValueError(f"bias must be [D] = [{D}], got {list(bias.shape)}")
    if activation not in (None, "silu"):
        raise ValueError(f"activation must be None or 'silu', got {activation!r}")
    form = choose(implementation, x, ("naive", "shift"), cpu="shift", gpu="shift")
    convolve = shift_short_convolution if form == "shift" else naive_short_convolution
    return convolve(x, weight, bias, activation == "silu")
