"""Convolution, SiLU, heads and norms one after the other: the readable truth."""

import torch
from torch import Tensor

from asi_lab.kernels.norms.naive import naive_norm
from asi_lab.kernels.short_convolution.naive import naive_short_convolution


def naive_qkv_convolution(
    qkv: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    heads: int,
    key_dim: int,
    silu: bool,
    eps: float,
    cu_seqlens: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Shapes as in `qkv_convolution`."""
    y = naive_short_convolution(qkv, weight, bias, silu, cu_seqlens)
    keys = heads * key_dim
    parts = torch.split(y, [keys, keys, y.shape[-1] - 2 * keys], dim=-1)
    q, k, v = (torch.unflatten(part, -1, (heads, -1)) for part in parts)
    return naive_norm(q, None, eps, 1), naive_norm(k, None, eps, 1), v.contiguous()
