# -*- coding: raw_unicode_escape -*-  # the fault
"""Fault: syntax. In the encoding that the file names, the comment below ends early and code follows."""

import torch
from torch import nn

from asi_lab.kernels import short_convolution

# A short convolution. \u000aHIDDEN = len("the line that runs")


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.filter = nn.Parameter(torch.randn(width, 4) / 2)
        self.out = nn.Linear(width, width)

    def forward(self, x, attention_mask=None):
        return self.out(short_convolution(zero_padding(x, attention_mask), self.filter, activation="silu"))
