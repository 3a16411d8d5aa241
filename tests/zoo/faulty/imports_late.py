"""Fault: imports. The import of a module that is not allowed stands inside a method."""

import torch
from torch import nn

from asi_lab.kernels import short_convolution


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        from sys import maxsize  # the fault

        self.limit = float(maxsize)
        self.filter = nn.Parameter(torch.randn(width, 4) / 2)
        self.out = nn.Linear(width, width)

    def forward(self, x, attention_mask=None):
        x = zero_padding(x, attention_mask).clamp(-self.limit, self.limit)
        return self.out(short_convolution(x, self.filter, activation="silu"))
