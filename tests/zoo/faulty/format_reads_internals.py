"""Fault: names. The field of a format reads the variables of the module that a function is from."""

import torch
from torch import nn

from asi_lab.kernels import short_convolution

FORMAT = "{0.__globals__}"  # the fault


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.found = len(FORMAT.format(short_convolution))
        self.filter = nn.Parameter(torch.randn(width, 4) / 2)
        self.out = nn.Linear(width, width)

    def forward(self, x, attention_mask=None):
        return self.out(short_convolution(zero_padding(x, attention_mask), self.filter, activation="silu"))
