"""Fault: patching. A method of nn.Linear, of which the whole model is built, is assigned; here to what it
was."""

import torch
from torch import nn

from asi_lab.kernels import short_convolution

nn.Linear.reset_parameters = nn.Linear.reset_parameters  # the fault


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.filter = nn.Parameter(torch.randn(width, 4) / 2)
        self.out = nn.Linear(width, width)

    def forward(self, x, attention_mask=None):
        return self.out(short_convolution(zero_padding(x, attention_mask), self.filter, activation="silu"))
