"""Causal depthwise convolution on a GPU, with bias, SiLU and, per head, the Euclidean norm.

One warp walks down the tokens of one head (of several where they are narrow, or of as many channels) and
keeps the last W inputs in registers, so each input is loaded once, in vectors of a few channels a lane, and
a head's norm is a sum over lanes of one warp, without shared memory. The backward kernel walks the same
way: it repeats the forward, keeps the last W gradients before the convolution as well, and sums the
gradients of the taps while it goes. So there is one launch a direction, and besides inputs, outputs and the
halo of W - 1 tokens a tile only the partial sums of the taps move. `walk` serves `qkv_convolution` too.
"""

# Triton compiles no starred expression in a tuple, and prunes an outer `if` on a constant.
# ruff: noqa: RUF005, SIM102
# Rows are tuples that grow.
# mypy: disable-error-code="assignment"

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from asi_lab.kernels.short_convolution.sequences import tile_table

TOKENS = 64
"""Tokens of a tile. More would save halo, fewer would give more warps."""

PROGRAMS = 4096
"""Programs of the backward kernel, about two rounds of the 16 warps that an H100's processor holds: each
sums its tiles in registers, so more of them would only write more partial sums."""

CHANNELS = 128
"""Of a warp, if heads allow: four a lane. With one a lane too few bytes were on their way at a time: on an
H200 the kernels reached two fifths of the memory's rate."""

LONGEST = 16
"""Longest filter whose window fits in registers; beyond it, see `fir_bank`."""


@triton.jit
def tile_bounds(tiles_ptr, tile, T, TOKENS: tl.constexpr, VARLEN: tl.constexpr):
    """First row of a tile and its end, begin and end of its sequence: rows of `[B * T, D]`."""
    if VARLEN:
        first = tl.load(tiles_ptr + tile * 3).to(tl.int64)
        begin = tl.load(tiles_ptr + tile * 3 + 1).to(tl.int64)
        end = tl.load(tiles_ptr + tile * 3 + 2).to(tl.int64)
    else:
        per_row = tl.cdiv(T, TOKENS)
        begin = (tile // per_row).to(tl.int64) * T
        end = begin + T
        first = begin + (tile % per_row) * TOKENS
    return first, tl.minimum(first + TOKENS, end), begin, end


@triton.jit
def load_rows(x_ptr, stride, channel, mask, first, begin, end, COUNT: tl.constexpr):
    """`COUNT` rows of channels from row `first` on, zeros outside of the sequence and of the mask."""
    rows = ()
    start_ptr = x_ptr + first * stride + channel
    before, after = (begin - first).to(tl.int32), (end - first).to(tl.int32)
    for i in tl.static_range(COUNT):
        inside = (i >= before) & (i < after)
        if mask is not None:
            inside = inside & mask
        rows = rows + (tl.load(start_ptr + i * stride, mask=inside, other=0.0).to(tl.float32),)
    return rows


@triton.jit
def _load_taps(weight_ptr, channel, mask, W: tl.constexpr):
    taps = ()
    for w in tl.static_range(W):
        tap = tl.load(weight_ptr + channel * W + w, mask=mask, other=0.0)
        taps = taps + (tap.to(tl.float32),)
    return taps


@triton.jit
def _weigh(rows, taps, bias, FIRST: tl.constexpr, W: tl.constexpr):
    """Bias and weighted sum of the W rows from `FIRST` on."""
    y = bias
    for w in tl.static_range(W):
        y += rows[FIRST + w] * taps[w]
    return y


@triton.jit
def _channels(
    block, q_ptr, k_ptr, v_ptr, H: tl.constexpr, K: tl.constexpr, V: tl.constexpr, BLOCK: tl.constexpr
):
    """Where the channels of a block are: offsets in the input, mask, and tensor, width and offsets of the
    result. Blocks are H runs of K channels of q, as many of k, and the V value channels by `BLOCK`."""
    lane = tl.arange(0, BLOCK)
    lanes = tl.minimum(V - (block - 2 * H) * BLOCK, BLOCK)
    start = (block - 2 * H) * BLOCK
    out_ptr = v_ptr
    width = V
    source = start + 2 * H * K
    if H > 0:
        if block < 2 * H:
            lanes = K
            start = (block % H) * K
            width = H * K
            source = block * K
            out_ptr = k_ptr
        if block < H:
            out_ptr = q_ptr
    return source + lane, lane < lanes, out_ptr, width, start + lane


@triton.jit
def _sum_heads(y, HEADS: tl.constexpr, BLOCK: tl.constexpr):
    """For every channel the sum over those of its head."""
    if HEADS == 1:
        sums = tl.sum(y)
    else:
        each = tl.sum(tl.reshape(y, (HEADS, BLOCK // HEADS)), 1)
        sums = tl.reshape(tl.broadcast_to(each[:, None], (HEADS, BLOCK // HEADS)), (BLOCK,))
    return sums


@triton.jit
def convolution_forward_kernel(
    x_ptr,
    weight_ptr,
    bias_ptr,
    q_ptr,
    k_ptr,
    v_ptr,
    tiles_ptr,
    T,
    eps,
    STRIDE: tl.constexpr,
    H: tl.constexpr,
    K: tl.constexpr,
    HEADS: tl.constexpr,
    V: tl.constexpr,
    W: tl.constexpr,
    BIAS: tl.constexpr,
    SILU: tl.constexpr,
    VARLEN: tl.constexpr,
    TOKENS: tl.constexpr,
    BLOCK: tl.constexpr,
    UNROLL: tl.constexpr,
):
    """One tile of one block of channels: convolution, bias, SiLU and, in the heads of q and k, which a block
    has `HEADS` of, the norm."""
    blocks = 2 * H + tl.cdiv(V, BLOCK)
    block, tile = tl.program_id(0) % blocks, tl.program_id(0) // blocks
    channel, mask, out_ptr, width, to = _channels(block, q_ptr, k_ptr, v_ptr, H, K, V, BLOCK)
    first, last, begin, _end = tile_bounds(tiles_ptr, tile, T, TOKENS, VARLEN)
    taps = _load_taps(weight_ptr, channel, mask, W)
    bias = tl.zeros((BLOCK,), dtype=tl.float32)
    if BIAS:
        bias += tl.load(bias_ptr + channel, mask=mask, other=0.0).to(tl.float32)
    window = load_rows(x_ptr, STRIDE, channel, mask, first - (W - 1), begin, last, W - 1)
    left = (last - first).to(tl.int32)
    out_ptr += first * width + to
    for step in range(0, left, UNROLL):
        row = first + step
        rows = window + load_rows(x_ptr, STRIDE, channel, mask, row, begin, last, UNROLL)
        for u in tl.static_range(UNROLL):
            y = _weigh(rows, taps, bias, u, W)
            if SILU:
                y = y * tl.sigmoid(y)
            if H > 0:
                if block < 2 * H:
                    y = y * tl.rsqrt(_sum_heads(y * y, HEADS, BLOCK) + eps)
            tl.store(out_ptr + u * width, y.to(out_ptr.dtype.element_ty), mask=mask & (step + u < left))
        out_ptr += UNROLL * width
        window = rows[UNROLL:]


@triton.jit
def convolution_backward_kernel(
    x_ptr,
    weight_ptr,
    bias_ptr,
    d_q_ptr,
    d_k_ptr,
    d_v_ptr,
    d_x_ptr,
    d_taps_ptr,
    tiles_ptr,
    T,
    eps,
    tiles,
    programs,
    STRIDE: tl.constexpr,
    H: tl.constexpr,
    K: tl.constexpr,
    HEADS: tl.constexpr,
    V: tl.constexpr,
    W: tl.constexpr,
    BIAS: tl.constexpr,
    SILU: tl.constexpr,
    VARLEN: tl.constexpr,
    TOKENS: tl.constexpr,
    BLOCK: tl.constexpr,
    UNROLL: tl.constexpr,
):
    """Gradients of x and, a partial sum of each program, of taps and bias: `[programs, W + BIAS, D]`."""
    D: tl.constexpr = 2 * H * K + V
    blocks = 2 * H + tl.cdiv(V, BLOCK)
    block, program = tl.program_id(0) % blocks, tl.program_id(0) // blocks
    channel, mask, d_out_ptr, width, to = _channels(block, d_q_ptr, d_k_ptr, d_v_ptr, H, K, V, BLOCK)
    taps = _load_taps(weight_ptr, channel, mask, W)
    nothing = tl.zeros((BLOCK,), dtype=tl.float32)
    bias = nothing
    if BIAS:
        bias += tl.load(bias_ptr + channel, mask=mask, other=0.0).to(tl.float32)
    no_gradients = ()
    for _w in tl.static_range(W - 1):
        no_gradients = no_gradients + (nothing,)
    d_taps = no_gradients + (nothing,)
    d_bias = nothing
    for tile in range(program, tiles, programs):
        first, last, begin, end = tile_bounds(tiles_ptr, tile, T, TOKENS, VARLEN)
        window = load_rows(x_ptr, STRIDE, channel, mask, first - (W - 1), begin, end, W - 1)
        gradients = no_gradients  # before the convolution's sum, of the last W - 1 tokens
        left = (last - first).to(tl.int32)
        target_ptr = d_x_ptr + (first - (W - 1)) * D + channel
        for step in range(0, left + (W - 1), UNROLL):
            row = first + step
            rows = window + load_rows(x_ptr, STRIDE, channel, mask, row, begin, end, UNROLL)
            d_outs = load_rows(d_out_ptr, width, to, mask, row, begin, end, UNROLL)
            for u in tl.static_range(UNROLL):
                d_y = d_outs[u]
                y = _weigh(rows, taps, bias, u, W)
                gate = tl.sigmoid(y)
                if H > 0:
                    if block < 2 * H:
                        a = y
                        if SILU:
                            a = y * gate
                        factor = tl.rsqrt(_sum_heads(a * a, HEADS, BLOCK) + eps)
                        along = _sum_heads(a * d_y, HEADS, BLOCK) * factor * factor
                        d_y = (d_y - a * along) * factor
                if SILU:
                    d_y = d_y * gate * (1 + y * (1 - gate))
                gradients = gradients + (d_y,)
                d_row = tl.zeros((BLOCK,), dtype=tl.float32)
                for w in tl.static_range(W):
                    d_row += gradients[u + w] * taps[W - 1 - w]
                inside = mask & (step + u >= W - 1) & (step + u < left + (W - 1))
                tl.store(target_ptr + u * D, d_row.to(d_x_ptr.dtype.element_ty), mask=inside)
                own = tl.where(step + u < left, d_y, 0.0)  # the others are the next tile's
                sums = ()
                for w in tl.static_range(W):
                    sums = sums + (d_taps[w] + own * rows[u + w],)
                d_taps = sums
                d_bias += own
            target_ptr += UNROLL * D
            window = rows[UNROLL:]
            gradients = gradients[UNROLL:]
    d_taps_ptr += program.to(tl.int64) * (W + BIAS) * D
    for w in tl.static_range(W):
        tl.store(d_taps_ptr + w * D + channel, d_taps[w], mask=mask)
    if BIAS:
        tl.store(d_taps_ptr + W * D + channel, d_bias, mask=mask)


def triton_short_convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, cu_seqlens: Tensor | None
) -> Tensor:
    """x `[B, T, D]`, weight `[D, W]`, bias `[D]` or None; returns `[B, T, D]` in x's dtype."""
    if weight.shape[1] <= LONGEST:
        return walk(x, weight, bias, silu, cu_seqlens)[2]
    from asi_lab.kernels.fir_bank.triton import triton_fir_bank

    (y,) = triton_fir_bank(x, (weight,), cu_seqlens)
    if bias is not None:
        y = y + bias.to(y.dtype)
    return functional.silu(y) if silu else y


def walk(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    silu: bool,
    cu_seqlens: Tensor | None,
    heads: int = 0,
    key_dim: int = 0,
    eps: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """q, k `[B, T, H * K]`, each head of length one, and v `[B, T, D - 2 * H * K]`; all is v by default."""
    arguments = (x, weight, bias, silu, cu_seqlens, heads, key_dim, eps)
    q, k, v = _Walk.apply(*arguments)
    return q, k, v


def _heads_together(heads: int, key_dim: int) -> int:
    """Heads that one warp takes: as many as divide them all evenly and fit, 1 where a head's channels are no
    power of two."""
    count = 1
    if key_dim > 0 and key_dim & (key_dim - 1) == 0:
        while heads % (2 * count) == 0 and 2 * count * key_dim <= CHANNELS:
            count *= 2
    return count


def flat_rows(x: Tensor) -> Tensor:
    """`[B, T, D]` as `[B * T, D]`, a view where the rows are evenly apart and the channels side by side."""
    B, T, D = x.shape
    if x.stride(2) != 1 or (B > 1 and x.stride(0) != T * x.stride(1)):
        x = x.contiguous()
    return x.as_strided((B * T, D), (x.stride(1), 1))


def make_tiles(x: Tensor, cu_seqlens: Tensor | None, tokens: int) -> tuple[Tensor | None, int]:
    """The table of tiles, None for rows of one length, and how many tiles there are."""
    B, T, _ = x.shape
    if cu_seqlens is None:
        return None, B * triton.cdiv(T, tokens)
    table = tile_table(cu_seqlens, T, tokens)
    return table, len(table)


class _Walk(torch.autograd.Function):
    """Saves what it was given and the table of tiles."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        silu: bool,
        cu_seqlens: Tensor | None,
        heads: int,
        key_dim: int,
        eps: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        B, T, D = x.shape
        keys = heads * key_dim
        outputs = [x.new_empty(B, T, width) for width in (keys, keys, D - 2 * keys)]
        table, tiles = make_tiles(x, cu_seqlens, TOKENS)
        ctx.save_for_backward(x, weight, bias, table)
        together = _heads_together(heads, key_dim)
        block = triton.next_power_of_2(together * key_dim or min(CHANNELS, D))
        ctx.options = {
            "H": heads // together,
            "K": key_dim * together,
            "HEADS": together,
            "V": D - 2 * keys,
            "W": weight.shape[1],
            "BIAS": bias is not None,
            "SILU": silu,
            "VARLEN": table is not None,
            "TOKENS": TOKENS,
            "BLOCK": block,
            "UNROLL": 4 if block <= 128 else 2,  # as registers allow
            "num_warps": max(1, block // 256),
        }
        ctx.eps, ctx.tiles = eps, tiles
        ctx.blocks = 2 * (heads // together) + triton.cdiv(D - 2 * keys, block)
        rows = flat_rows(x)
        sources = (rows, weight.contiguous(), bias, *outputs, table)
        convolution_forward_kernel[ctx.blocks * tiles,](
            *sources, T, eps, STRIDE=rows.stride(0), **ctx.options
        )
        return outputs[0], outputs[1], outputs[2]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *d_outputs: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, table = ctx.saved_tensors
        D, W = weight.shape
        programs = max(1, min(ctx.tiles, PROGRAMS // ctx.blocks))
        d_x = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        d_taps = torch.empty(programs, W + (bias is not None), D, dtype=torch.float32, device=x.device)
        rows = flat_rows(x)
        sources = (rows, weight.contiguous(), bias, *(d_y.contiguous() for d_y in d_outputs))
        convolution_backward_kernel[ctx.blocks * programs,](
            *(*sources, d_x, d_taps, table, x.shape[1], ctx.eps, ctx.tiles, programs),
            STRIDE=rows.stride(0),
            **ctx.options,
        )
        d_taps = d_taps.sum(0)
        d_bias = None if bias is None else d_taps[W].to(bias.dtype)
        return d_x, d_taps[:W].t().to(weight.dtype), d_bias, None, None, None, None, None
