"""Fault: parameters. The gated projection is 16 times as wide as the model."""

import torch
from torch import nn
from torch.nn import functional

from asi_lab.kernels import short_convolution


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        inner = 16 * width
        self.inner = nn.Linear(width, 2 * inner)  # the fault
        self.filter = nn.Parameter(torch.randn(inner, 4) / 2)
        self.out = nn.Linear(inner, width)

    def forward(self, x, attention_mask=None):
        v, gate = self.inner(zero_padding(x, attention_mask)).chunk(2, -1)
        return self.out(short_convolution(v, self.filter) * functional.silu(gate))
