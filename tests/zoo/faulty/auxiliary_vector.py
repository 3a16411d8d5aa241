"""Fault: shapes. The auxiliary loss in slot two is one number per head instead of one."""

import torch
from torch import nn

from asi_lab.kernels import short_convolution


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.inner = nn.Linear(width, width)
        self.router = nn.Linear(width, heads)
        self.filter = nn.Parameter(torch.randn(width, 4) / 2)
        self.out = nn.Linear(width, width)

    def forward(self, x, attention_mask=None):
        x = zero_padding(x, attention_mask)
        share = torch.sigmoid(self.router(x))
        mixed = short_convolution(self.inner(x), self.filter).unflatten(-1, (self.heads, -1))
        return self.out((mixed * share[..., None]).flatten(2)), 0.01 * share.mean((0, 1))  # the fault
