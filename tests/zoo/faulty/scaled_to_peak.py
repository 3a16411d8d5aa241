"""Fault: statistics. Sequences with a value above 8 anywhere are scaled to that peak; noise has none."""

import torch
from torch import nn
from torch.nn import functional

from asi_lab.kernels import short_convolution


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.inner = nn.Linear(width, 2 * width)
        self.filter = nn.Parameter(torch.randn(width, 4) / 2)
        self.out = nn.Linear(width, width)

    def forward(self, x, attention_mask=None):
        x = zero_padding(x, attention_mask)
        peak = x.abs().amax((1, 2), keepdim=True)
        v, gate = self.inner(x / (peak / 8).clamp_min(1)).chunk(2, -1)  # the fault
        return self.out(short_convolution(v, self.filter) * functional.silu(gate))
