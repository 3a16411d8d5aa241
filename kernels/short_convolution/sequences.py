"""Sequences laid one after the other in a single row, and the tiles of tokens that kernels work on."""

from itertools import pairwise

import torch
from torch import Tensor

from asi_lab.kernels.common import check_bounds, count_sequences


def check_cu_seqlens(cu_seqlens: Tensor | None, x: Tensor) -> None:
    """Raise ValueError unless `cu_seqlens` `[N + 1]` cuts the tokens of x, `[1, T, ...]`, into N sequences.

    That it rises from 0 to T is checked on a CPU only: on a GPU the look would wait for the device.
    """
    count_sequences(x.shape[0], cu_seqlens)
    if cu_seqlens is None:
        return
    if cu_seqlens.device != x.device:
        raise ValueError(f"cu_seqlens must be on {x.device}, got it on {cu_seqlens.device}")
    if cu_seqlens.device.type == "cpu":
        check_bounds(cu_seqlens.tolist(), x.shape[1])


def sequence_bounds(cu_seqlens: Tensor | None, T: int) -> list[tuple[int, int]]:
    """First token and end of each sequence that is not empty; one sequence of T tokens by default."""
    bounds = [0, T] if cu_seqlens is None else cu_seqlens.tolist()
    return [(begin, end) for begin, end in pairwise(bounds) if begin < end]


def tile_table(cu_seqlens: Tensor, T: int, tokens: int) -> Tensor:
    """Tiles of at most `tokens` tokens of one sequence: `[n, 3]` of first token, sequence's begin and end.

    n is a bound that needs no look at the values; tiles beyond the last start at or after their end.
    """
    begins, ends = cu_seqlens[:-1], cu_seqlens[1:]
    counts = (ends - begins + tokens - 1) // tokens
    last = counts.cumsum(0)
    tile = torch.arange(T // tokens + len(counts), device=cu_seqlens.device)
    sequence = torch.searchsorted(last, tile, right=True).clamp_(max=len(counts) - 1)
    first = begins[sequence] + (tile - (last - counts)[sequence]) * tokens
    return torch.stack((first, begins[sequence], ends[sequence]), dim=1)
