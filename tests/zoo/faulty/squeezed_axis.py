"""Fault: shapes. A squeeze without an axis removes the time axis as well where there is one token."""

import torch
from torch import nn
from torch.nn import functional

from asi_lab.kernels import short_convolution


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.inner = nn.Linear(width, 2 * width)
        self.filters = nn.Parameter(torch.randn(width, 4, 1) / 2)
        self.out = nn.Linear(width, width)

    def forward(self, x, attention_mask=None):
        v, gate = self.inner(zero_padding(x, attention_mask)).chunk(2, -1)
        paths = torch.stack([short_convolution(v, taps) for taps in self.filters.unbind(-1)])
        mixed = paths.squeeze()  # the fault
        return self.out(mixed * functional.silu(gate.squeeze()))
