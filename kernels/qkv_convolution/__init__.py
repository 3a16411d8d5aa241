"""What precedes the recurrence of a DeltaNet-like layer (arXiv 2406.06484): convolution, SiLU, norm."""

from typing import Literal

import torch
from torch import Tensor

from asi_lab.kernels.common import check_tensors, choose, is_silu
from asi_lab.kernels.qkv_convolution.fused import fused_qkv_convolution
from asi_lab.kernels.qkv_convolution.naive import naive_qkv_convolution
from asi_lab.kernels.short_convolution import check_parameters
from asi_lab.kernels.short_convolution.sequences import check_cu_seqlens


def qkv_convolution(
    qkv: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    num_heads: int,
    key_dim: int,
    activation: Literal["silu", "swish"] | None = "silu",
    norm_eps: float = 1e-6,
    cu_seqlens: Tensor | None = None,
    implementation: Literal["auto", "naive", "fused", "triton"] = "auto",
) -> tuple[Tensor, Tensor, Tensor]:
    """`short_convolution` over queries, keys and values side by side, heads, and `l2_norm` of q and k.

    qkv is `[B, T, 2 * H * K + H * V]`, the projections one after the other, weight `[2 * H * K + H * V, W]`
    (its last column meets the current token), bias of the same width; `num_heads` is H and `key_dim` K.
    With `cu_seqlens` `[N + 1]` the one row of qkv holds N sequences, the i-th from token `cu_seqlens[i]`
    up to `cu_seqlens[i + 1]`, that the convolution does not mix.

    Returns q, k `[B, T, H, K]`, of length one in every head, and v `[B, T, H, V]`: contiguous, in qkv's
    dtype. Raises ValueError for what is no tensor and for shapes that do not fit.
    """
    check_tensors(qkv=qkv)
    if qkv.dim() != 3:
        raise ValueError(f"qkv must be [B, T, D], got {list(qkv.shape)}")
    D = qkv.shape[-1]
    if num_heads < 1 or key_dim < 1 or 2 * num_heads * key_dim >= D or D % num_heads:
        expected = f"num_heads * (2 * key_dim + V) with num_heads = {num_heads}, key_dim = {key_dim}"
        raise ValueError(f"qkv must have a width of {expected} and V of at least 1, got {D}")
    weight, silu = check_parameters(qkv, weight, bias), is_silu(activation)
    check_cu_seqlens(cu_seqlens, qkv)
    form = choose(implementation, qkv, ("naive", "fused", "triton"), cpu="fused", gpu="triton")
    arguments = (qkv, weight, bias, num_heads, key_dim, silu, norm_eps, cu_seqlens)
    with torch.autocast(qkv.device.type, enabled=False):
        if form == "triton":
            from asi_lab.kernels.qkv_convolution.triton import triton_qkv_convolution

            return triton_qkv_convolution(*arguments)
        return (fused_qkv_convolution if form == "fused" else naive_qkv_convolution)(*arguments)
