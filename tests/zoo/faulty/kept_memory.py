"""Fault: state. The last token of a call is remembered and mixed into the next call."""

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
        self.memory = 0.0

    def forward(self, x, attention_mask=None):
        v, gate = self.inner(zero_padding(x, attention_mask)).chunk(2, -1)
        y = short_convolution(v, self.filter) + self.memory
        self.memory = v[0, -1].detach()  # the fault
        return self.out(y * functional.silu(gate))
