"""Gated normalisation as the formula says."""

import torch
from torch import Tensor
from torch.nn import functional

from asi_lab.kernels.common import compute_dtype
from asi_lab.kernels.norms.naive import naive_norm


def naive_gated_rms_norm(
    x: Tensor, gate: Tensor, weight: Tensor | None, eps: float, silu: bool, norm_before_gate: bool
) -> Tensor:
    """x and gate are `[..., D]`, weight `[D]`; returns x's shape and dtype."""
    dtype = compute_dtype(x)
    y, gate = x.to(dtype), gate.to(dtype)
    gate = functional.silu(gate) if silu else torch.sigmoid(gate)
    if not norm_before_gate:
        y = y * gate
    y = naive_norm(y, weight, eps, x.shape[-1])
    return (y * gate if norm_before_gate else y).to(x.dtype)
