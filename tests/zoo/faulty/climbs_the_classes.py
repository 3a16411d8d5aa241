"""Fault: names. All classes of the process are reached through the base of a base class."""

import torch
from torch import nn

from asi_lab.kernels import short_convolution


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.classes = len(nn.Module.__base__.__subclasses__())  # the fault
        self.filter = nn.Parameter(torch.randn(width, 4) / 2)
        self.out = nn.Linear(width, width)

    def forward(self, x, attention_mask=None):
        return self.out(short_convolution(zero_padding(x, attention_mask), self.filter, activation="silu"))
