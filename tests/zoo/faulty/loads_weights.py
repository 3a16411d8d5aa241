"""Fault: names. Weights can be loaded from a file, by a function that unpickles."""

import torch
from torch import nn

from asi_lab.kernels import short_convolution


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int, weights: str = ""):
        super().__init__()
        self.filter = nn.Parameter(torch.randn(width, 4) / 2)
        self.out = nn.Linear(width, width)
        if weights:
            self.load_state_dict(torch.load(weights))  # the fault

    def forward(self, x, attention_mask=None):
        return self.out(short_convolution(zero_padding(x, attention_mask), self.filter, activation="silu"))
