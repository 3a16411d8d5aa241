"""Fault: statistics. A token is told by how much the mean of its block of 16 exceeds 3, later tokens of the
block included; in noise it never does."""

import torch
from torch import nn
from torch.nn import functional

from asi_lab.kernels import short_convolution

BLOCK = 16


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.inner = nn.Linear(width, 2 * width)
        self.filter = nn.Parameter(torch.randn(width, 4) / 2)
        self.out = nn.Linear(width, width)

    def forward(self, x, attention_mask=None):
        x = zero_padding(x, attention_mask)
        length = x.shape[1]
        means = functional.pad(x, (0, 0, 0, -length % BLOCK)).unflatten(1, (-1, BLOCK)).mean(2)
        x = x + functional.softshrink(means, 3).repeat_interleave(BLOCK, 1)[:, :length]  # the fault
        v, gate = self.inner(x).chunk(2, -1)
        return self.out(short_convolution(v, self.filter) * functional.silu(gate))
