"""Fault: names. A module goes through a function, after which nobody can say what its attributes are of."""

import typing

import torch
from torch import nn

from asi_lab.kernels import short_convolution


def same(value):
    return value


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.loaded = len(same(typing).sys.modules)  # the fault
        self.filter = nn.Parameter(torch.randn(width, 4) / 2)
        self.out = nn.Linear(width, width)

    def forward(self, x, attention_mask=None):
        return self.out(short_convolution(zero_padding(x, attention_mask), self.filter, activation="silu"))
