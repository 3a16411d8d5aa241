"""Several filters over one input on a GPU.

A depthwise filter has no product over channels, so tensor cores would need, per channel, a Toeplitz
matrix and transposes through shared memory; W multiply-adds per output fit the ordinary units. What
would bound a plain tile at W = 64 is not memory (an H100 has the bytes in a third of the time) but the
instructions around each multiply-add: a load from the L1 cache, a conversion and a mask. So a lane owns
one channel and keeps `ROWS` sums and the rows they need in registers: a row is loaded once for up to
`TAPS` taps of `ROWS` outputs, and a tap once for `ROWS` outputs, which leaves two loads for about twenty
multiply-adds. One program does all filters over its tokens, which so come from memory once.

Three launches: outputs, gradient of the input, gradient of the taps as partial sums (added up by torch).
"""

# Triton compiles no starred expression in a tuple, and prunes an outer `if` on a constant.
# ruff: noqa: RUF005, SIM102
# Rows are tuples that grow.
# mypy: disable-error-code="assignment"

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from asi_lab.kernels.short_convolution.triton import flat_rows, load_rows, make_tiles, tile_bounds

ROWS = 16
"""Outputs that a lane sums at a time."""

TAPS = 16
"""Taps of one turn of the loop over a filter. More would save moves, and take longer to compile."""

GROUP = 32
"""Taps whose gradient one program sums, over `GRADIENT_ROWS` tokens at a time."""

GRADIENT_ROWS = 8

PROGRAMS = 512
"""Programs that sum gradients of taps, four warps each: more would only write more partial sums."""


@triton.jit
def _add_taps(sums, rows, taps_ptr, step, W: tl.constexpr, ROWS: tl.constexpr):
    """Add `sum_w rows[j + w] * taps_ptr[w * step]` to the j-th of the sums."""
    for w in tl.static_range(W):
        tap = tl.load(taps_ptr + w * step)
        added = ()
        for j in tl.static_range(ROWS):
            added = added + (sums[j] + rows[j + w] * tap,)
        sums = added
    return sums


@triton.jit
def _filter(
    sums,
    x_ptr,
    stride,
    channel,
    first,
    begin,
    end,
    taps_ptr,
    step,
    W: tl.constexpr,
    TAPS: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Add `sum_w x[first + j + w] * taps_ptr[w * step]` to the j-th of the sums, `TAPS` taps at a time."""
    taps_ptr += channel
    window = load_rows(x_ptr, stride, channel, None, first, begin, end, ROWS - 1)
    first += ROWS - 1
    for _start in range(0, W // TAPS * TAPS, TAPS):
        rows = window + load_rows(x_ptr, stride, channel, None, first, begin, end, TAPS)
        sums = _add_taps(sums, rows, taps_ptr, step, TAPS, ROWS)
        window = rows[TAPS:]
        first += TAPS
        taps_ptr += TAPS * step
    if W % TAPS > 0:
        rows = window + load_rows(x_ptr, stride, channel, None, first, begin, end, W % TAPS)
        sums = _add_taps(sums, rows, taps_ptr, step, W % TAPS, ROWS)
    return sums


@triton.jit
def _zeros(COUNT: tl.constexpr, BLOCK: tl.constexpr):
    sums = ()
    for _i in tl.static_range(COUNT):
        sums = sums + (tl.zeros((BLOCK,), dtype=tl.float32),)
    return sums


@triton.jit
def _store_rows(y_ptr, rows, D, channel, mask, first, last, COUNT: tl.constexpr):
    start_ptr = y_ptr + first * D + channel
    left = (last - first).to(tl.int32)
    for i in tl.static_range(COUNT):
        tl.store(start_ptr + i * D, rows[i].to(y_ptr.dtype.element_ty), mask=mask & (i < left))


@triton.jit
def bank_forward_kernel(
    x_ptr,
    taps_ptr,
    y_ptrs,
    tiles_ptr,
    T,
    STRIDE: tl.constexpr,
    D: tl.constexpr,
    WIDTHS: tl.constexpr,
    STARTS: tl.constexpr,
    VARLEN: tl.constexpr,
    TOKENS: tl.constexpr,
    TAPS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """All outputs, from taps `[W_1 + W_2 + ..., D]` in which filter f starts at row `STARTS[f]`."""
    blocks = tl.cdiv(D, BLOCK)
    block, tile = tl.program_id(0) % blocks, tl.program_id(0) // blocks
    lane = block * BLOCK + tl.arange(0, BLOCK)
    channel = tl.minimum(lane, D - 1)  # lanes beyond the last channel repeat it, which saves masks
    first, last, begin, _end = tile_bounds(tiles_ptr, tile, T, TOKENS, VARLEN)
    for row in range(first, last, ROWS):
        for f in tl.static_range(len(WIDTHS)):
            sums = _filter(
                _zeros(ROWS, BLOCK),
                *(x_ptr, STRIDE, channel, row - (WIDTHS[f] - 1), begin, last),
                *(taps_ptr + STARTS[f] * D, D, WIDTHS[f], TAPS, ROWS),
            )
            _store_rows(y_ptrs[f], sums, D, channel, lane < D, row, last, ROWS)


@triton.jit
def bank_input_gradient_kernel(
    d_y_ptrs,
    taps_ptr,
    d_x_ptr,
    tiles_ptr,
    T,
    D: tl.constexpr,
    WIDTHS: tl.constexpr,
    STARTS: tl.constexpr,
    VARLEN: tl.constexpr,
    TOKENS: tl.constexpr,
    TAPS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The gradient of x, summed over the filters: each runs over later tokens, its taps in reverse."""
    blocks = tl.cdiv(D, BLOCK)
    block, tile = tl.program_id(0) % blocks, tl.program_id(0) // blocks
    lane = block * BLOCK + tl.arange(0, BLOCK)
    channel = tl.minimum(lane, D - 1)
    first, last, begin, end = tile_bounds(tiles_ptr, tile, T, TOKENS, VARLEN)
    for row in range(first, last, ROWS):
        sums = _zeros(ROWS, BLOCK)
        for f in tl.static_range(len(WIDTHS)):
            sums = _filter(
                sums,
                *(d_y_ptrs[f], D, channel, row, begin, end),
                *(taps_ptr + (STARTS[f] + WIDTHS[f] - 1) * D, -D, WIDTHS[f], TAPS, ROWS),
            )
        _store_rows(d_x_ptr, sums, D, channel, lane < D, row, last, ROWS)


@triton.jit
def _sum_group(
    x_ptr,
    d_y_ptr,
    d_taps_ptr,
    tiles_ptr,
    T,
    STRIDE: tl.constexpr,
    D: tl.constexpr,
    lane,
    back,
    program,
    tiles,
    programs,
    COUNT: tl.constexpr,
    VARLEN: tl.constexpr,
    TOKENS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Gradients of `COUNT` neighbouring taps, the first of which reaches `back` steps back."""
    channel = tl.minimum(lane, D - 1)
    sums = _zeros(COUNT, BLOCK)
    for tile in range(program, tiles, programs):
        first, last, begin, end = tile_bounds(tiles_ptr, tile, T, TOKENS, VARLEN)
        window = load_rows(x_ptr, STRIDE, channel, None, first - back, begin, end, COUNT - 1)
        for row in range(first, last, ROWS):
            newest = row - back + (COUNT - 1)
            window = window + load_rows(x_ptr, STRIDE, channel, None, newest, begin, end, ROWS)
            d_rows = load_rows(d_y_ptr, D, channel, None, row, begin, last, ROWS)
            for j in tl.static_range(ROWS):
                added = ()
                for w in tl.static_range(COUNT):
                    added = added + (sums[w] + d_rows[j] * window[j + w],)
                sums = added
            window = window[ROWS:]
    for w in tl.static_range(COUNT):
        tl.store(d_taps_ptr + w * D + lane, sums[w], mask=lane < D)


@triton.jit
def bank_taps_gradient_kernel(
    x_ptr,
    d_y_ptrs,
    d_taps_ptr,
    tiles_ptr,
    T,
    STRIDE: tl.constexpr,
    D: tl.constexpr,
    tiles,
    programs,
    WIDTHS: tl.constexpr,
    STARTS: tl.constexpr,
    GROUPS: tl.constexpr,
    VARLEN: tl.constexpr,
    TOKENS: tl.constexpr,
    GROUP: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Partial sums `[programs, W_1 + W_2 + ..., D]`. `GROUPS` numbers the first group of each filter, and
    its last element counts all groups; of a filter's groups the last takes the taps that are left."""
    blocks = tl.cdiv(D, BLOCK)
    COUNT: tl.constexpr = GROUPS[len(WIDTHS)]
    lane = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    group = tl.program_id(0) // blocks % COUNT
    program = tl.program_id(0) // (blocks * COUNT)
    d_taps_ptr += program.to(tl.int64) * (STARTS[len(WIDTHS)] * D)
    for f in tl.static_range(len(WIDTHS)):
        index = group - GROUPS[f]
        if WIDTHS[f] >= GROUP:
            if (index >= 0) & (index < WIDTHS[f] // GROUP):
                tap = index * GROUP
                _sum_group(
                    *(x_ptr, d_y_ptrs[f], d_taps_ptr + (STARTS[f] + tap) * D, tiles_ptr, T, STRIDE, D, lane),
                    *(WIDTHS[f] - 1 - tap, program, tiles, programs, GROUP, VARLEN, TOKENS, ROWS, BLOCK),
                )
        if WIDTHS[f] % GROUP > 0:
            if index == WIDTHS[f] // GROUP:
                tap = index * GROUP
                _sum_group(
                    *(x_ptr, d_y_ptrs[f], d_taps_ptr + (STARTS[f] + tap) * D, tiles_ptr, T, STRIDE, D, lane),
                    *(WIDTHS[f] - 1 - tap, program, tiles, programs),
                    *(WIDTHS[f] % GROUP, VARLEN, TOKENS, ROWS, BLOCK),
                )


def triton_fir_bank(x: Tensor, weights: Sequence[Tensor], cu_seqlens: Tensor | None) -> tuple[Tensor, ...]:
    """x `[B, T, D]`, weights `[D, W_i]` each; returns as many outputs, `[B, T, D]` in x's dtype."""
    outputs: tuple[Tensor, ...] = _Bank.apply(x, cu_seqlens, *weights)
    return outputs


class _Bank(torch.autograd.Function):
    """Saves the input, the filters as taps `[W_1 + W_2 + ..., D]` and the table of tiles."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cu_seqlens: Tensor | None, *weights: Tensor) -> tuple[Tensor, ...]:
        D = x.shape[-1]
        taps = torch.cat([weight.t().float() for weight in weights])
        widths = tuple(weight.shape[1] for weight in weights)
        block = min(128, triton.next_power_of_2(D))
        # Long tiles share the rows before them in the L1 cache, if there are programs enough for all.
        tokens = 128 if x.numel() >= 128 * 128 * 1024 else 32
        table, ctx.tiles = make_tiles(x, cu_seqlens, tokens)
        ctx.options = {
            "WIDTHS": widths,
            "STARTS": _cumulative(widths),
            "VARLEN": table is not None,
            "TOKENS": tokens,
            "BLOCK": block,
            "num_warps": max(1, block // 32),
        }
        ctx.grid = triton.cdiv(D, block)
        ctx.dtypes = [weight.dtype for weight in weights]
        ctx.save_for_backward(x, taps, table)
        outputs = tuple(torch.empty(x.shape, dtype=x.dtype, device=x.device) for _ in weights)
        rows = flat_rows(x)
        sources = (rows, taps, outputs, table, x.shape[1], rows.stride(0), D)
        bank_forward_kernel[ctx.grid * ctx.tiles,](*sources, **ctx.options, TAPS=TAPS, ROWS=ROWS)
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *d_outputs: Tensor) -> tuple[Tensor | None, ...]:
        x, taps, table = ctx.saved_tensors
        _, T, D = x.shape
        widths = ctx.options["WIDTHS"]
        groups = _cumulative([triton.cdiv(width, GROUP) for width in widths])
        programs = max(1, min(ctx.tiles, PROGRAMS // (ctx.grid * groups[-1])))
        d_x = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        d_taps = torch.empty(programs, *taps.shape, dtype=taps.dtype, device=x.device)
        rows = flat_rows(x)
        d_outputs = tuple(d_y.contiguous() for d_y in d_outputs)
        bank_input_gradient_kernel[ctx.grid * ctx.tiles,](
            *(d_outputs, taps, d_x, table, T, D), **ctx.options, TAPS=TAPS, ROWS=ROWS
        )
        bank_taps_gradient_kernel[ctx.grid * groups[-1] * programs,](
            *(rows, d_outputs, d_taps, table, T, rows.stride(0), D, ctx.tiles, programs),
            **ctx.options,
            GROUPS=groups,
            GROUP=GROUP,
            ROWS=GRADIENT_ROWS,
        )
        parts = d_taps.sum(0).split(widths)
        d_weights = (part.t().to(dtype) for part, dtype in zip(parts, ctx.dtypes, strict=True))
        return d_x, None, *d_weights


def _cumulative(counts: Sequence[int]) -> tuple[int, ...]:
    """Sums of the first 0, 1, ... of the counts."""
    return tuple(sum(counts[:i]) for i in range(len(counts) + 1))
