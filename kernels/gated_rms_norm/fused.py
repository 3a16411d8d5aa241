"""Gated normalisation with a hand-written backward that saves no more than its inputs and a factor a row."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from asi_lab.kernels.common import compute_dtype


def fused_gated_rms_norm(
    x: Tensor, gate: Tensor, weight: Tensor | None, eps: float, silu: bool, norm_before_gate: bool
) -> Tensor:
    """x and gate are `[..., D]`, weight `[D]`; returns x's shape and dtype."""
    y: Tensor = _GatedNorm.apply(x, gate, weight, eps, silu, norm_before_gate)  # type: ignore[no-untyped-call]
    return y


class _GatedNorm(torch.autograd.Function):
    """`weight * unit(x) * act(gate)`, or `weight * unit(x * act(gate))`, where `unit(u) = u * factor(u)`."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        gate: Tensor,
        weight: Tensor | None,
        eps: float,
        silu: bool,
        norm_before_gate: bool,
    ) -> Tensor:
        y = _activate(gate.to(compute_dtype(x)), silu)
        if not norm_before_gate:
            y *= x
        normed = x if norm_before_gate else y
        factor = torch.linalg.vector_norm(normed, dim=-1, keepdim=True, dtype=y.dtype).square_()
        factor.div_(x.shape[-1]).add_(eps).rsqrt_()
        if norm_before_gate:
            y *= x
        y *= factor
        if weight is not None:
            y *= weight
        ctx.save_for_backward(x, gate, weight, factor)
        ctx.silu, ctx.norm_before_gate = silu, norm_before_gate
        return y.to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_y: Tensor) -> tuple[Tensor | None, ...]:
        x, gate, weight, factor = ctx.saved_tensors
        scale = None if weight is None else weight.to(factor.dtype)
        rows, gates, factors, d_y = (
            t.reshape(-1, t.shape[-1]).to(factor.dtype) for t in (x, gate, factor, d_y)
        )
        with torch.autocast(x.device.type, enabled=False):
            d_x, d_gate, d_weight = _backward(
                d_y, rows, gates, factors, scale, ctx.silu, ctx.norm_before_gate
            )
        d_x, d_gate = d_x.view(x.shape).to(x.dtype), d_gate.view(x.shape).to(gate.dtype)
        if d_weight is not None:
            d_weight = d_weight.to(weight.dtype)
        return d_x, d_gate, d_weight, None, None, None


def _backward(
    d_y: Tensor,
    x: Tensor,
    gate: Tensor,
    factor: Tensor,
    weight: Tensor | None,
    silu: bool,
    norm_before_gate: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Gradients of x, gate and weight, from rows `[rows, D]` in one dtype.

    Makes three tensors of the size of x and works inside them: on a CPU fresh memory costs more than
    arithmetic.
    """
    opened = _activate(gate, silu)
    if norm_before_gate:
        d_opened = d_y * x
        product = d_opened * opened
    else:
        normed = x * opened
        product = d_y * normed
    if weight is None:
        along, d_weight = product.sum(-1, keepdim=True), None
    else:
        along = torch.mv(product, weight).unsqueeze(-1)
        d_weight = torch.mv(product.t(), factor.squeeze(-1))
    # In this order no power of the factor leaves the range of float32.
    along.mul_(factor).mul_(factor).mul_(factor).div_(-x.shape[-1])
    if norm_before_gate:
        d_x = _scale(opened.mul_(d_y), factor, weight).addcmul_(x, along)
        d_opened = _scale(d_opened, factor, weight)
    else:
        d_normed = _scale(product.copy_(d_y), factor, weight).addcmul_(normed, along)
        d_x = opened.mul_(d_normed)
        d_opened = d_normed.mul_(x)
    if silu:
        torch.ops.aten.silu_backward.grad_input(d_opened, gate, grad_input=d_opened)
    else:
        torch.ops.aten.sigmoid_backward.grad_input(d_opened, torch.sigmoid(gate), grad_input=d_opened)
    return d_x, d_opened, d_weight


def _activate(gate: Tensor, silu: bool) -> Tensor:
    return functional.silu(gate) if silu else torch.sigmoid(gate)


def _scale(x: Tensor, factor: Tensor, weight: Tensor | None) -> Tensor:
    """Multiplies x in place."""
    return x.mul_(factor) if weight is None else x.mul_(factor).mul_(weight)
