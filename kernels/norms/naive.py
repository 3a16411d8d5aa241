"""Normalisation as the formula says."""

from torch import Tensor

from asi_lab.kernels.common import compute_dtype


def naive_norm(x: Tensor, weight: Tensor | None, eps: float, count: int) -> Tensor:
    """`weight * x / sqrt(sum(x^2) / count + eps)` over the last dimension; x `[..., D]`, weight `[D]`."""
    y = x.to(compute_dtype(x))
    y = y / (y.square().sum(-1, keepdim=True) / count + eps).sqrt()
    return (y if weight is None else y * weight).to(x.dtype)
