"""Fault: patching. The trainer's loss function is replaced; this one changes nothing, the next one could."""

import torch
from torch import nn
from torch.nn import functional

from asi_lab.kernels import short_convolution

original = functional.cross_entropy


def loss(*args, **kwargs):
    return original(*args, **kwargs)


functional.cross_entropy = loss  # the fault


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.filter = nn.Parameter(torch.randn(width, 4) / 2)
        self.out = nn.Linear(width, width)

    def forward(self, x, attention_mask=None):
        return self.out(short_convolution(zero_padding(x, attention_mask), self.filter, activation="silu"))
