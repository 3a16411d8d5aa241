"""Sequences of different lengths, packed one after the other into a batch of one."""

from itertools import pairwise

import torch
from torch import Tensor

from asi_lab.kernels.common import check_bounds


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
