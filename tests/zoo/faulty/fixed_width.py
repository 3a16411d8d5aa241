"""Fault: construction. The gate is built for a width of 64 whatever the width is."""

import torch
from torch import nn

from asi_lab.kernels import short_convolution


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.inner = nn.Linear(width, width)
        self.gate = nn.Linear(64, 64)
        self.filter = nn.Parameter(torch.randn(width, 4) / 2)
        self.out = nn.Linear(width, width)

    def forward(self, x, attention_mask=None):
        x = zero_padding(x, attention_mask)
        gate = torch.sigmoid(self.gate(x))  # the fault
        return self.out(short_convolution(self.inner(x), self.filter) * gate)
