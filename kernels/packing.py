"""Sequences of different lengths, packed one after the other into a batch of one."""

from itertools import pairwise

import torch
from torch import Tensor

from asi_lab.kernels.common import check_bounds, count_sequences


class Packing:
    """Where N packed sequences begin and end: sequence n is tokens `cu_seqlens[n]` to `cu_seqlens[n + 1]`.

    Unpacked, each is a row of its own, with zeros after its end: `[N, longest, ...]`. That costs as much as
    N sequences of the longest one's length; a key, value, beta and log-decay of 0 leave a memory as it is.
    Both directions are differentiable. `bounds` is `cu_seqlens` on the host; a GPU has to finish for it.

    Raises:
        ValueError: `cu_seqlens` does not start at 0, decreases, or does not end at T.
    """

    def __init__(self, cu_seqlens: Tensor, T: int):
        self.bounds: list[int] = cu_seqlens.tolist()
        check_bounds(self.bounds, T)
        lengths = [end - start for start, end in pairwise(self.bounds)]
        self.N, self.longest = len(lengths), max(lengths)
        # The place of each token among the rows.
        places = [torch.arange(length) + n * self.longest for n, length in enumerate(lengths)]
        self.places = torch.cat(places).to(cu_seqlens.device)

    def unpack(self, x: Tensor) -> Tensor:
        """`[1, T, ...]` to `[N, longest, ...]`."""
        rows = x.new_zeros(self.N * self.longest, *x.shape[2:])
        rows = rows.index_copy(0, self.places.to(x.device), x[0])
        return rows.view(self.N, self.longest, *x.shape[2:])

    def pack(self, x: Tensor) -> Tensor:
        """`[N, longest, ...]` to `[1, T, ...]`."""
        return x.flatten(0, 1).index_select(0, self.places.to(x.device)).unsqueeze(0)


def after_earlier(
    x: Tensor, earlier: Tensor, W: int, cu_seqlens: Tensor | None
) -> tuple[Tensor, Tensor | None, slice | Tensor]:
    """Sequences after the last inputs before them, all that a filter of W taps sees.

    x is `[B, T, D]`, earlier `[N, D, W]`, with N = B or what `cu_seqlens` `[N + 1]` packs. Returns the longer
    x, its bounds, and where among its tokens those of x are.

    Raises:
        ValueError: shapes do not fit, or `cu_seqlens` does not cut x.
    """
    if x.dim() != 3:
        raise ValueError(f"x must be [B, T, D], got {list(x.shape)}")
    shape = (count_sequences(x.shape[0], cu_seqlens), x.shape[2], W)
    if earlier.shape != shape:
        raise ValueError(f"initial_state must be [N, D, W] = {list(shape)}, got {list(earlier.shape)}")
    before = earlier.to(x.dtype).mT[:, 1:]
    if cu_seqlens is None:
        return torch.cat((before, x), 1), None, slice(W - 1, None)
    parts, places = [], []
    for n, (start, end) in enumerate(pairwise(Packing(cu_seqlens, x.shape[1]).bounds)):
        parts += [before[n], x[0, start:end]]
        places.append(torch.arange(start, end, device=x.device) + (n + 1) * (W - 1))
    added = (W - 1) * torch.arange(len(cu_seqlens), device=cu_seqlens.device, dtype=cu_seqlens.dtype)
    return torch.cat(parts).unsqueeze(0), cu_seqlens + added, torch.cat(places)


def last_tokens(x: Tensor, earlier: Tensor | None, W: int, cu_seqlens: Tensor | None) -> Tensor:
    """The last W tokens of each sequence, of `earlier` or zeros where it is shorter: `[N, D, W]`; arguments
    as in `after_earlier`."""
    N, D = count_sequences(x.shape[0], cu_seqlens), x.shape[2]
    before = x.new_zeros(N, W, D) if earlier is None else earlier.to(x.dtype).mT
    if cu_seqlens is None:
        return torch.cat((before, x), 1)[:, -W:].mT.contiguous()
    bounds = pairwise(Packing(cu_seqlens, x.shape[1]).bounds)
    ends = [torch.cat((before[n], x[0, start:end]))[-W:] for n, (start, end) in enumerate(bounds)]
    return torch.stack(ends).mT.contiguous()
