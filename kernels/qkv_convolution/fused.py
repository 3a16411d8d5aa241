"""The whole prologue on one block of tokens after the other, with a hand-written backward.

A block goes through convolution, SiLU and norm while it is in the cache, and q, k, v are written where
they belong, contiguous.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from asi_lab.kernels.common import compute_dtype
from asi_lab.kernels.short_convolution.shift import (
    add_taps_gradient,
    convolve_block,
    from_taps,
    input_gradient,
    split_blocks,
    to_taps,
)


def fused_qkv_convolution(
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
    arguments = (qkv, weight, bias, heads, key_dim, silu, eps, cu_seqlens)
    q, k, v = _QkvConvolution.apply(*arguments)  # type: ignore[no-untyped-call]
    return q, k, v


class _QkvConvolution(torch.autograd.Function):
    """Saves the input, the result before the activation, q, k, and one factor a head and token."""

    @staticmethod
    def forward(
        ctx: Any,
        qkv: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        heads: int,
        key_dim: int,
        silu: bool,
        eps: float,
        cu_seqlens: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        B, T, D = qkv.shape
        dtype = compute_dtype(qkv)
        inputs, taps = qkv.to(dtype), to_taps(weight, dtype)
        q, k = (qkv.new_empty(B, T, heads, key_dim) for _ in range(2))
        v = qkv.new_empty(B, T, heads, D // heads - 2 * key_dim)
        y = torch.empty(qkv.shape, dtype=dtype, device=qkv.device)
        factors = y.new_empty(B, T, 2 * heads, 1)
        ctx.blocks = split_blocks(qkv, cu_seqlens)
        for block in ctx.blocks:
            convolved = block.of(y)
            convolve_block(inputs, taps, block, convolved)
            if bias is not None:
                convolved += bias
            q_block, k_block, v_block = block.of(q), block.of(k), block.of(v)
            keys, values = _split(functional.silu(convolved) if silu else convolved, heads, key_dim)
            factor = block.of(factors)
            torch.linalg.vector_norm(keys, dim=-1, keepdim=True, out=factor)
            factor.square_().add_(eps).rsqrt_()
            torch.mul(keys[:, :, :heads], factor[:, :, :heads], out=q_block)
            torch.mul(keys[:, :, heads:], factor[:, :, heads:], out=k_block)
            v_block.copy_(values)
        ctx.save_for_backward(qkv, weight, bias, y, factors, q, k)
        ctx.heads, ctx.key_dim, ctx.silu = heads, key_dim, silu
        return q, k, v

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_q: Tensor, d_k: Tensor, d_v: Tensor) -> tuple[Tensor | None, ...]:
        qkv, weight, bias, y, factors, *units = ctx.saved_tensors
        dtype = compute_dtype(qkv)
        inputs, taps = qkv.to(dtype), to_taps(weight, dtype)
        d_y, d_x, d_taps = torch.empty_like(inputs), torch.empty_like(inputs), torch.zeros_like(taps)
        for block in reversed(ctx.blocks):  # the gradient of a block needs that of later tokens' d_y
            convolved, d_block = block.of(y), block.of(d_y)
            d_keys, d_values = _split(d_block, ctx.heads, ctx.key_dim)
            factor = block.of(factors)
            for n, (unit, d_unit) in enumerate(zip(units, (d_q, d_k), strict=True)):
                heads = slice(n * ctx.heads, (n + 1) * ctx.heads)
                unit, d_unit = block.of(unit), block.of(d_unit)
                along = (d_unit * unit).sum(-1, keepdim=True, dtype=dtype)
                torch.addcmul(d_unit.to(dtype), unit, along, value=-1, out=d_keys[:, :, heads])
                d_keys[:, :, heads].mul_(factor[:, :, heads])
            d_values.copy_(block.of(d_v))
            if ctx.silu:
                torch.ops.aten.silu_backward.grad_input(d_block, convolved, grad_input=d_block)
            input_gradient(d_x, d_y, taps, block)
            add_taps_gradient(d_taps, d_y, inputs, block)
        d_bias = None if bias is None else d_y.sum((0, 1)).to(bias.dtype)
        return d_x.to(qkv.dtype), from_taps(d_taps, weight), d_bias, None, None, None, None, None


def _split(y: Tensor, heads: int, key_dim: int) -> tuple[Tensor, Tensor]:
    """Views of `[B, T, D]`: queries and keys `[B, T, 2 H, K]`, values `[B, T, H, V]`."""
    keys = 2 * heads * key_dim
    shape = (*y.shape[:2], heads, -1)
    return y[..., :keys].view(*y.shape[:2], 2 * heads, key_dim), y[..., keys:].view(shape)
