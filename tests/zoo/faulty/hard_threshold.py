"""Fault: gradients. The gate is open or shut: a comparison passes no gradient to its weights."""

import torch
from torch import nn

from asi_lab.kernels import short_convolution


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.inner = nn.Linear(width, width)
        self.gate = nn.Linear(width, width)
        self.filter = nn.Parameter(torch.randn(width, 4) / 2)
        self.out = nn.Linear(width, width)

    def forward(self, x, attention_mask=None):
        x = zero_padding(x, attention_mask)
        gate = (self.gate(x) > 0).to(x.dtype)  # the fault
        return self.out(short_convolution(self.inner(x), self.filter) * gate)
