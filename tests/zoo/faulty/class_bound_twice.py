"""Fault: class. The name of the layer's class is also given to something else."""

import torch
from torch import nn

from asi_lab.kernels import short_convolution

DeltaNet = nn.Linear  # the fault


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.filter = nn.Parameter(torch.randn(width, 4) / 2)
        self.out = nn.Linear(width, width)

    def forward(self, x, attention_mask=None):
        return self.out(short_convolution(zero_padding(x, attention_mask), self.filter, activation="silu"))
