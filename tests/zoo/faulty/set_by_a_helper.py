"""Fault: patching. A helper sets attributes of anything; here a method of nn.Linear, to what it was."""

import torch
from torch import nn

from asi_lab.kernels import short_convolution


def replace(owner, name, value):
    setattr(owner, name, value)  # the fault


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        replace(nn.Linear, "forward", nn.Linear.forward)
        self.filter = nn.Parameter(torch.randn(width, 4) / 2)
        self.out = nn.Linear(width, width)

    def forward(self, x, attention_mask=None):
        return self.out(short_convolution(zero_padding(x, attention_mask), self.filter, activation="silu"))
