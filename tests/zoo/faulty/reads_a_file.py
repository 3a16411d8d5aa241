"""Fault: names. A file is opened."""

import torch
from torch import nn

from asi_lab.kernels import short_convolution


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.reach = 4 + len(open("/dev/null").read())  # the fault
        self.filter = nn.Parameter(torch.randn(width, self.reach) / 2)
        self.out = nn.Linear(width, width)

    def forward(self, x, attention_mask=None):
        return self.out(short_convolution(zero_padding(x, attention_mask), self.filter, activation="silu"))
