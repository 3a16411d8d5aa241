"""Fault: state. The gate gets sharper with every call, also in eval mode."""

import torch
from torch import nn

from asi_lab.kernels import short_convolution


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.inner = nn.Linear(width, 2 * width)
        self.filter = nn.Parameter(torch.randn(width, 4) / 2)
        self.out = nn.Linear(width, width)
        self.calls = 0

    def forward(self, x, attention_mask=None):
        v, gate = self.inner(zero_padding(x, attention_mask)).chunk(2, -1)
        self.calls += 1  # the fault
        return self.out(short_convolution(v, self.filter) * torch.sigmoid(gate * (1 + self.calls / 100)))
