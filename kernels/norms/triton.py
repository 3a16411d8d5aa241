"""Normalisation on a GPU, with or without an output gate: one launch forward, one backward.

A program takes some rows of `[..., D]` whole, so everything is read once; the backward pass computes a
row's factor again rather than reading it. Each program of the backward pass sums the gradient of the
weight over its rows; PyTorch adds up these sums, always in the same order.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

MAX_PROGRAMS = 1024
"""Of the backward pass: they all fit on a large GPU at once, and leave few sums to add up."""


def triton_norm(
    x: Tensor,
    weight: Tensor | None,
    eps: float,
    count: int,
    gate: Tensor | None = None,
    silu: bool = True,
    norm_before_gate: bool = True,
) -> Tensor:
    """`weight * x / sqrt(sum(x^2) / count + eps)` times the activated gate, which comes after the norm
    or before. x and gate are `[..., D]`, weight `[D]`; computed in float32, returned in x's dtype."""
    y: Tensor = _Norm.apply(x, weight, gate, eps, count, silu, norm_before_gate)
    return y


class _Norm(torch.autograd.Function):
    """Saves its inputs only."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, gate: Tensor | None, eps: float, *options: Any
    ) -> Tensor:
        y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        blocks, inputs, constants = _launch(x, weight, gate, eps, *options)
        norm_forward_kernel[(blocks,)](*inputs, y, **constants)
        ctx.save_for_backward(x, weight, gate)
        ctx.eps, ctx.options = eps, options
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_y: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, gate = ctx.saved_tensors
        blocks, inputs, constants = _launch(x, weight, gate, ctx.eps, *ctx.options)
        programs = blocks if weight is None else min(blocks, MAX_PROGRAMS)
        d_y = _rows(d_y)
        d_x, d_gate = (
            None if t is None else torch.empty(t.shape, dtype=t.dtype, device=x.device) for t in (x, gate)
        )
        sums = None
        if weight is not None:
            sums = torch.empty(programs, x.shape[-1], dtype=torch.float32, device=x.device)
        gradients = (d_y, d_y.stride()[:2], d_x, d_gate, sums, blocks)
        norm_backward_kernel[(programs,)](*inputs, *gradients, **constants)
        d_weight = None if weight is None or sums is None else sums.sum(0).to(weight.dtype)
        return d_x, d_weight, d_gate, None, None, None, None


def _launch(
    x: Tensor,
    weight: Tensor | None,
    gate: Tensor | None,
    eps: float,
    count: int,
    silu: bool,
    norm_before_gate: bool,
) -> tuple[int, tuple[Any, ...], dict[str, Any]]:
    """Blocks of rows, inputs and constants that both kernels share."""
    rows, D = _rows(x), x.shape[-1]
    gates = None if gate is None else _rows(gate)
    scales = None if weight is None else weight.contiguous()
    width = triton.next_power_of_2(D)
    # One 16-byte load per tensor and thread, more for rows too long for that.
    warps = min(16, max(4, width * x.element_size() // 1024))
    block = max(1, warps * 32 * 16 // x.element_size() // width)
    R = rows.shape[0] * rows.shape[1]
    inputs = (rows, rows.stride()[:2], gates, () if gates is None else gates.stride()[:2])
    constants = {
        "D": D,
        "COUNT": count,
        "SILU": silu,
        "NORM_FIRST": norm_before_gate,
        "BLOCK_R": block,
        "BLOCK_D": width,
        "num_warps": warps,
    }
    return triton.cdiv(R, block), (*inputs, scales, R, rows.shape[1], eps), constants


def _rows(x: Tensor) -> Tensor:
    """`[..., D]` to `[outer, inner, D]`, copied only if no strides, with the last 1, can express that."""
    inner = x.shape[-2] if x.dim() > 2 else 1
    x = x.reshape(-1, inner, x.shape[-1])
    return x if x.stride(-1) == 1 else x.contiguous()


@triton.jit
def norm_forward_kernel(
    x, x_strides, gate, gate_strides, weight, R, INNER, eps, y,
    D: tl.constexpr, COUNT: tl.constexpr, SILU: tl.constexpr, NORM_FIRST: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """A block of rows: norm, weight, gate."""
    d = tl.arange(0, BLOCK_D)
    row = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    inside = (row < R)[:, None] & (d < D)[None, :]
    value = _load(x, x_strides, row, INNER, d, inside)
    if gate is not None:
        act, _slope = _activate(_load(gate, gate_strides, row, INNER, d, inside), SILU)
        if not NORM_FIRST:
            value *= act
    value *= tl.rsqrt(tl.sum(value * value, 1) / COUNT + eps)[:, None]
    if weight is not None:
        value *= tl.load(weight + d, d < D, 0.0).to(tl.float32)[None, :]
    if gate is not None and NORM_FIRST:
        value *= act
    tl.store(y + row.to(tl.int64)[:, None] * D + d[None, :], value, inside)


@triton.jit
def norm_backward_kernel(
    x, x_strides, gate, gate_strides, weight, R, INNER, eps,
    d_y, d_y_strides, d_x, d_gate, sums, blocks,
    D: tl.constexpr, COUNT: tl.constexpr, SILU: tl.constexpr, NORM_FIRST: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Every so many blocks of rows: the gradients of x and gate, and the sum of that of the weight."""
    d = tl.arange(0, BLOCK_D)
    if weight is not None:
        scale = tl.load(weight + d, d < D, 0.0).to(tl.float32)[None, :]
        d_scale = tl.zeros((BLOCK_R, BLOCK_D), tl.float32)
    for block in range(tl.program_id(0), blocks, tl.num_programs(0)):
        row = block * BLOCK_R + tl.arange(0, BLOCK_R)
        inside = (row < R)[:, None] & (d < D)[None, :]
        at = row.to(tl.int64)[:, None] * D + d[None, :]
        given = _load(x, x_strides, row, INNER, d, inside)
        d_unit = _load(d_y, d_y_strides, row, INNER, d, inside)
        value = given
        if gate is not None:
            act, slope = _activate(_load(gate, gate_strides, row, INNER, d, inside), SILU)
            if not NORM_FIRST:
                value = given * act
        factor = tl.rsqrt(tl.sum(value * value, 1) / COUNT + eps)[:, None]
        unit = value * factor
        if gate is not None and NORM_FIRST:
            d_act = d_unit * unit
            d_unit *= act
        if weight is not None:
            d_scale += d_unit * unit
            d_unit *= scale
            if gate is not None and NORM_FIRST:
                d_act *= scale
        along = tl.sum(d_unit * unit, 1) / COUNT
        d_value = (d_unit - unit * along[:, None]) * factor
        if gate is not None:
            if not NORM_FIRST:
                d_act = d_value * given
                d_value *= act
            tl.store(d_gate + at, d_act * slope, inside)
        tl.store(d_x + at, d_value, inside)
    if weight is not None:
        tl.store(sums + tl.program_id(0) * D + d, tl.sum(d_scale, 0), d < D)


@triton.jit
def _load(x, strides, row, INNER, d, inside):
    """Rows of `[outer, inner, D]` in float32."""
    start = (row // INNER).to(tl.int64) * strides[0] + (row % INNER).to(tl.int64) * strides[1]
    return tl.load(x + start[:, None] + d[None, :], inside, 0.0).to(tl.float32)


@triton.jit
def _activate(gate, SILU: tl.constexpr):
    """The activation and its slope."""
    opened = tl.sigmoid(gate)
    slope = opened * (1.0 - opened)
    if SILU:
        slope = opened + gate * slope
        opened = gate * opened
    return opened, slope
