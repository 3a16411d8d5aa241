"""Fault: state_dict. Random directions are a plain attribute, so that they are neither saved nor loaded."""

import torch
from torch import nn

from asi_lab.kernels import short_convolution


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.inner = nn.Linear(width, width)
        self.filter = nn.Parameter(torch.randn(width, 4) / 2)
        self.directions = torch.randn(width, width) * width**-0.5  # the fault
        self.out = nn.Linear(width, width)

    def forward(self, x, attention_mask=None):
        v = short_convolution(self.inner(zero_padding(x, attention_mask)), self.filter)
        return self.out(torch.cos(v @ self.directions))
