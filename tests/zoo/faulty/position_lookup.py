"""Fault: parameters. A table of learned positions for 8192 tokens is larger than the whole model."""

import torch
from torch import nn
from torch.nn import functional

from asi_lab.kernels import short_convolution


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.positions = nn.Parameter(torch.randn(8192, width) / 10)  # the fault
        self.inner = nn.Linear(width, 2 * width)
        self.filter = nn.Parameter(torch.randn(width, 4) / 2)
        self.out = nn.Linear(width, width)

    def forward(self, x, attention_mask=None):
        x = zero_padding(x + self.positions[: x.shape[1]], attention_mask)
        v, gate = self.inner(x).chunk(2, -1)
        return self.out(short_convolution(v, self.filter) * functional.silu(gate))
