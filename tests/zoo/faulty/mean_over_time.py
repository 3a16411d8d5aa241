"""Fault: causality. Every token gets the mean of the whole sequence."""

import torch
from torch import nn

from asi_lab.kernels import short_convolution


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.inner = nn.Linear(width, width)
        self.filter = nn.Parameter(torch.randn(width, 4) / 2)
        self.out = nn.Linear(width, width)

    def forward(self, x, attention_mask=None):
        v = self.inner(zero_padding(x, attention_mask))
        v = v + v.mean(1, keepdim=True)  # the fault
        return self.out(short_convolution(v, self.filter))
