"""Fault: names. All classes of the process are reached by the name of a special method given as text."""

import torch
from torch import nn

from asi_lab.kernels import short_convolution


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.classes = len(getattr(nn.Module, "__subclasses__", list)())  # the fault
        self.filter = nn.Parameter(torch.randn(width, 4) / 2)
        self.out = nn.Linear(width, width)

    def forward(self, x, attention_mask=None):
        return self.out(short_convolution(zero_padding(x, attention_mask), self.filter, activation="silu"))
