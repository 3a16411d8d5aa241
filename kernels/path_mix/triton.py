"""Routing over parallel paths on a GPU: one launch forward, one backward, and no stack of the paths.

A row is a token of a head. Each program takes a few rows, computes their weights in registers (the
backward pass does so again) and reads every path once, through a pointer of its own; only numbers of a
row, not of a channel, cross threads. Gradients of parameters that all tokens share are written per row,
1 / V of what a path takes, and summed by PyTorch, always in the same order.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from asi_lab.kernels.path_mix import naive

MAX_LOGIT = tl.constexpr(naive.MAX_LOGIT)
MIN_TEMPERATURE = tl.constexpr(naive.MIN_TEMPERATURE)
TINY = tl.constexpr(torch.finfo(torch.float32).tiny)


def triton_path_mix(
    paths: Sequence[Tensor],
    logits: Tensor,
    sigmoid: bool,
    groups: Sequence[int] | None,
    temperature: Tensor | float,
    floor: Tensor | float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Arguments and results are those of `naive_path_mix`, but computed in float32 from any dtype."""
    sizes = (len(paths),) if groups is None else groups
    bounds = (0, *itertools.accumulate(sizes))
    outputs: tuple[Tensor, Tensor, Tensor] = _PathMix.apply(
        logits, temperature, floor, sigmoid, bounds, *naive.promote(paths)
    )
    return outputs


class _PathMix(torch.autograd.Function):
    """Saves its inputs only."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        temperature: Tensor | float,
        floor: Tensor | float,
        sigmoid: bool,
        bounds: tuple[int, ...],
        *paths: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        B, T, H, _ = paths[0].shape
        o = torch.empty(paths[0].shape, dtype=paths[0].dtype, device=logits.device)
        weights = torch.empty(B, T, H, len(paths), dtype=torch.float32, device=logits.device)
        entropy = torch.empty(B, T, H, dtype=torch.float32, device=logits.device)
        grid, inputs, constants = _launch(logits, temperature, floor, sigmoid, bounds, paths)
        path_mix_forward_kernel[grid](*inputs, o, weights, entropy, **constants)
        ctx.save_for_backward(logits, *(x for x in (temperature, floor) if isinstance(x, Tensor)), *paths)
        ctx.numbers = [None if isinstance(x, Tensor) else x for x in (temperature, floor)]
        ctx.sigmoid, ctx.bounds = sigmoid, bounds
        ctx.set_materialize_grads(False)
        return o, weights, entropy

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, d_o: Tensor | None, d_weights: Tensor | None, d_entropy: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        logits, *rest = ctx.saved_tensors
        temperature, floor = (rest.pop(0) if x is None else x for x in ctx.numbers)
        d_o = _rows(torch.zeros_like(rest[0]) if d_o is None else d_o)
        d_weights, d_entropy = (None if d is None else d.contiguous() for d in (d_weights, d_entropy))
        d_paths = tuple(torch.empty(path.shape, dtype=path.dtype, device=path.device) for path in rest)
        d_logits = torch.empty(logits.shape, dtype=logits.dtype, device=logits.device)
        d_temperature, d_floor = (
            torch.empty(*logits.shape[:3], *last, dtype=torch.float32, device=logits.device)
            if isinstance(x, Tensor)
            else None
            for x, last in ((temperature, ()), (floor, (len(rest),)))
        )
        grid, inputs, constants = _launch(logits, temperature, floor, ctx.sigmoid, ctx.bounds, rest)
        gradients = (d_o, d_o.stride()[:2], d_weights, d_entropy, d_paths, d_logits, d_temperature, d_floor)
        path_mix_backward_kernel[grid](*inputs, *gradients, **constants)
        d_temperature, d_floor = (
            d.sum_to_size(x.shape).to(x.dtype) if d is not None else None
            for d, x in ((d_temperature, temperature), (d_floor, floor))
        )
        return d_logits, d_temperature, d_floor, None, None, *d_paths


def _launch(
    logits: Tensor,
    temperature: Tensor | float,
    floor: Tensor | float,
    sigmoid: bool,
    bounds: tuple[int, ...],
    paths: Sequence[Tensor],
) -> tuple[tuple[int], tuple[Any, ...], dict[str, Any]]:
    """Grid, inputs and constants that both kernels share."""
    B, T, H, V = paths[0].shape
    rows = tuple(_rows(path) for path in paths)
    of_logits = logits.flatten(0, 1)
    inputs: list[Any] = [rows, tuple(s for row in rows for s in row.stride()[:2])]
    inputs += [of_logits, of_logits.stride()]
    for x, last in ((temperature, ()), (floor, (len(paths),))):
        if isinstance(x, Tensor):
            x = x.expand(B, T, H, *last).flatten(0, 1)
        inputs += [x, x.stride() if isinstance(x, Tensor) else ()]
    width = triton.next_power_of_2(V)
    # One warp, which needs no barriers to sum over channels, with two 16-byte loads of a path per thread.
    vectors = 2 if len(paths) <= 8 else 1
    block = min(32, max(1, 32 * vectors * 16 // paths[0].element_size() // width))
    constants = {
        "N": len(paths),
        "V": V,
        "BOUNDS": bounds,
        "SIGMOID": sigmoid,
        "BLOCK_R": block,
        "BLOCK_V": width,
        "num_warps": min(16, max(1, width // 1024)),
    }
    return (triton.cdiv(B * T * H, block),), (*inputs, B * T * H, H), constants


def _rows(x: Tensor) -> Tensor:
    """`[B, T, H, V]` to `[B * T, H, V]`, copied only if no strides, with the last 1, can express that."""
    x = x.flatten(0, 1)
    return x if x.stride(-1) == 1 else x.contiguous()


@triton.jit
def path_mix_forward_kernel(
    paths, path_strides, logits, logit_strides, temperature, temperature_strides, floor, floor_strides, R, H,
    o, weights, entropy,
    N: tl.constexpr, V: tl.constexpr, BOUNDS: tl.constexpr, SIGMOID: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_V: tl.constexpr,
):  # fmt: skip
    """A block of rows: weights, mixture, entropy."""
    row, token, head, live = _locate(R, H, BLOCK_R)
    inverse = _inverse_temperature(temperature, temperature_strides, token, head, live)
    _scores, shares, inside, _outer = _route(
        logits, logit_strides, token, head, live, inverse, N, BOUNDS, SIGMOID
    )
    floors, left = _floors(floor, floor_strides, token, head, live, N, SIGMOID)

    v = tl.arange(0, BLOCK_V)
    inner = live[:, None] & (v < V)[None, :]
    mixed = tl.zeros((BLOCK_R, BLOCK_V), tl.float32)
    h = tl.zeros((BLOCK_R,), tl.float32)
    for p in tl.static_range(N):
        weight = floors[p] + left[p] * shares[p]
        start = token * path_strides[2 * p] + head * path_strides[2 * p + 1]
        path = tl.load(paths[p] + start[:, None] + v[None, :], inner, 0.0).to(tl.float32)
        mixed += weight[:, None] * path
        tl.store(weights + row * N + p, weight, live)
        h -= weight * _log(weight)
        if SIGMOID:
            closed = left[p] * inside[p]
            h -= closed * _log(closed)
    tl.store(o + row[:, None] * V + v[None, :], mixed, inner)
    tl.store(entropy + row, h, live)


@triton.jit
def path_mix_backward_kernel(
    paths, path_strides, logits, logit_strides, temperature, temperature_strides, floor, floor_strides, R, H,
    d_o, d_o_strides, d_weights, d_entropy, d_paths, d_logits, d_temperature, d_floor,
    N: tl.constexpr, V: tl.constexpr, BOUNDS: tl.constexpr, SIGMOID: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_V: tl.constexpr,
):  # fmt: skip
    """A block of rows: the gradients of all that the forward kernel read."""
    G: tl.constexpr = 0 if len(BOUNDS) == 2 else len(BOUNDS) - 1
    row, token, head, live = _locate(R, H, BLOCK_R)
    inverse = _inverse_temperature(temperature, temperature_strides, token, head, live)
    scores, shares, inside, outer = _route(
        logits, logit_strides, token, head, live, inverse, N, BOUNDS, SIGMOID
    )
    floors, left = _floors(floor, floor_strides, token, head, live, N, SIGMOID)

    v = tl.arange(0, BLOCK_V)
    inner = live[:, None] & (v < V)[None, :]
    start = token * d_o_strides[0] + head * d_o_strides[1]
    d_mixed = tl.load(d_o + start[:, None] + v[None, :], inner, 0.0).to(tl.float32)
    d_weight = ()
    along = tl.zeros((BLOCK_R,), tl.float32)  # the gradient along the shares: sum of both, path by path
    for p in tl.static_range(N):
        weight = floors[p] + left[p] * shares[p]
        start = token * path_strides[2 * p] + head * path_strides[2 * p + 1]
        path = tl.load(paths[p] + start[:, None] + v[None, :], inner, 0.0).to(tl.float32)
        tl.store(d_paths[p] + row[:, None] * V + v[None, :], weight[:, None] * d_mixed, inner)
        d = tl.sum(path * d_mixed, 1)
        if d_weights is not None:
            d += tl.load(d_weights + row * N + p, live, 0.0)
        if d_entropy is not None:
            # -(1 + log w), but the constant falls out, as in the form in PyTorch.
            slope = -_log(weight)
            if SIGMOID:
                slope += _log(left[p] * inside[p])
            d += slope * tl.load(d_entropy + row, live, 0.0)
        along += d * shares[p]
        d_weight += (d,)

    if d_floor is not None:
        for p in tl.static_range(N):
            d = d_weight[p] * inside[p] if SIGMOID else d_weight[p] - along
            tl.store(d_floor + row * N + p, d, live)

    d_temp = tl.zeros((BLOCK_R,), tl.float32)
    for g in tl.static_range(len(BOUNDS) - 1):
        in_group = tl.zeros((BLOCK_R,), tl.float32)
        for p in tl.static_range(tl.constexpr(BOUNDS[g]), tl.constexpr(BOUNDS[g + 1])):
            in_group += left[p] * d_weight[p] * shares[p]
        for p in tl.static_range(tl.constexpr(BOUNDS[g]), tl.constexpr(BOUNDS[g + 1])):
            if SIGMOID:
                d = left[p] * d_weight[p] * shares[p] * inside[p]
            else:
                d = left[p] * d_weight[p] * shares[p] - inside[p] * in_group
            d_temp -= d * scores[G + p]
            tl.store(d_logits + row * (G + N) + G + p, d * inverse, live)
        if G > 0:
            d = in_group - outer[g] * left[0] * along
            d_temp -= d * scores[g]
            tl.store(d_logits + row * (G + N) + g, d * inverse, live)
    if d_temperature is not None:
        given = tl.load(
            temperature + token * temperature_strides[0] + head * temperature_strides[1], live, 1.0
        ).to(tl.float32)
        tl.store(d_temperature + row, tl.where(given < MIN_TEMPERATURE, 0.0, d_temp * inverse), live)


@triton.jit
def _locate(R, H, BLOCK_R: tl.constexpr):
    """Row, token and head of each row of a program, and which of them exist."""
    row = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)  # 32 bits divide much faster than 64
    return row.to(tl.int64), (row // H).to(tl.int64), (row % H).to(tl.int64), row < R


@triton.jit
def _inverse_temperature(temperature, strides, token, head, live):
    if len(strides) > 0:  # else a number
        given = tl.load(temperature + token * strides[0] + head * strides[1], live, 1.0).to(tl.float32)
    else:
        given = tl.full(token.shape, 1.0, tl.float32) * temperature
    return 1.0 / tl.maximum(given, MIN_TEMPERATURE, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _route(
    logits, strides, token, head, live, inverse,
    N: tl.constexpr, BOUNDS: tl.constexpr, SIGMOID: tl.constexpr,
):  # fmt: skip
    """Scores, shares, shares inside the group, and shares of groups, each a tuple of numbers of a row.

    Of a sigmoid gate the third is what it leaves out.
    """
    G: tl.constexpr = 0 if len(BOUNDS) == 2 else len(BOUNDS) - 1
    given = ()
    for i in tl.static_range(G + N):
        at = token * strides[0] + head * strides[1] + i * strides[2]
        x = tl.load(logits + at, live, 0.0).to(tl.float32)
        given += (tl.clamp(x, -MAX_LOGIT, MAX_LOGIT, propagate_nan=tl.PropagateNan.ALL),)
    scores = ()
    shares = ()
    inside = ()
    outer = ()
    if SIGMOID:
        for p in tl.static_range(N):
            scores += (given[p] * inverse,)
            shares += (tl.sigmoid(scores[p]),)
            inside += (tl.sigmoid(-scores[p]),)
    elif G == 0:
        scores, shares = _softmax(given, inverse, 0, N)
        inside = shares
    else:
        scores, outer = _softmax(given, inverse, 0, G)
        for g in tl.static_range(G):
            of_group, inside_group = _softmax(given, inverse, G + BOUNDS[g], G + BOUNDS[g + 1])
            scores += of_group
            inside += inside_group
            for p in tl.static_range(tl.constexpr(BOUNDS[g]), tl.constexpr(BOUNDS[g + 1])):
                shares += (outer[g] * inside[p],)
    return scores, shares, inside, outer


@triton.jit
def _softmax(given, inverse, FIRST: tl.constexpr, END: tl.constexpr):
    """The scores of `given[FIRST:END]`, the largest of which is 0, and their softmax."""
    largest = given[FIRST]
    for i in tl.static_range(FIRST + 1, END):
        largest = tl.maximum(largest, given[i])
    scores = ()
    exponentials = ()
    total = tl.zeros_like(largest)
    for i in tl.static_range(FIRST, END):
        score = (given[i] - largest) * inverse
        exponential = tl.exp(score)
        total += exponential
        scores += (score,)
        exponentials += (exponential,)
    shares = ()
    for i in tl.static_range(END - FIRST):
        shares += (exponentials[i] / total,)
    return scores, shares


@triton.jit
def _floors(floor, strides, token, head, live, N: tl.constexpr, SIGMOID: tl.constexpr):
    """Two tuples: the floor of each path and what is left for its share."""
    floors = ()
    total = tl.zeros(token.shape, tl.float32)
    for p in tl.static_range(N):
        if len(strides) > 0:  # else a number
            at = token * strides[0] + head * strides[1] + p * strides[2]
            least = tl.load(floor + at, live, 0.0).to(tl.float32)
        else:
            least = tl.full(token.shape, 1.0, tl.float32) * floor
        total += least
        floors += (least,)
    left = ()
    for p in tl.static_range(N):
        left += (1.0 - (floors[p] if SIGMOID else total),)
    return floors, left


@triton.jit
def _log(weight):
    return tl.log(tl.maximum(weight, TINY))
