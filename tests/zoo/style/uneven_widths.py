"""Checks of sizes in words, format specifications of every kind, and a report of its own."""
import math

import torch
from torch import nn


class Mixer(nn.Module):
    def __init__(self, width, heads, *, rank: "int | None" = None, verbose: bool = False):
        super().__init__()
        rank = rank or max(1, int(math.log2(width)))
        if not 0 < rank <= width:
            raise ValueError("rank {r:d} must be in (0, {w:,}]".format(r=rank, w=width))
        self.down, self.up = nn.Linear(width, rank, bias=False), nn.Linear(rank, width, bias=False)
        self.report = (
            f"{'rank':>{10}}: {rank:^8d} | {100 * rank / width:6.2f}% of {width!r} "
            f"{{not a field}} {self.__class__.__name__:<20}{' verbose' if verbose else ''}"
        )
        self.saved = "%-10s %5.1f%% %s" % ("saved", 100 - 100 * rank / width, {"heads": heads})

    def forward(self, x, attention_mask=None):
        y = self.up(self.down(x))
        return y * (1 if (n := y.shape[-1]) == x.shape[-1] else 0) + torch.zeros(n, device=x.device)
