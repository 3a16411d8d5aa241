"""Fault: repeatability. The functional dropout is not told the mode, and drops in eval mode too."""

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
        v, gate = self.inner(zero_padding(x, attention_mask)).chunk(2, -1)
        v = functional.dropout(v, 0.1)  # the fault
        return self.out(short_convolution(v, self.filter) * functional.silu(gate))
