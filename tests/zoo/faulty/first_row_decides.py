"""Fault: batch. The gate is computed from the first row and used for all."""

import torch
from torch import nn
from torch.nn import functional

from asi_lab.kernels import short_convolution


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.value = nn.Linear(width, width)
        self.gate = nn.Linear(width, width)
        self.filter = nn.Parameter(torch.randn(width, 4) / 2)
        self.out = nn.Linear(width, width)

    def forward(self, x, attention_mask=None):
        x = zero_padding(x, attention_mask)
        mixed = short_convolution(self.value(x), self.filter)
        return self.out(mixed * functional.silu(self.gate(x[:1])))  # the fault
