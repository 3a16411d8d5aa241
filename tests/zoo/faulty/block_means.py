"""Fault: causality. Each token gets the mean of its own block of 32 tokens, the rest of the block
included."""

import torch
from torch import nn
from torch.nn import functional

from asi_lab.kernels import short_convolution

BLOCK = 32


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.inner = nn.Linear(width, 2 * width)
        self.filter = nn.Parameter(torch.randn(width, 4) / 2)
        self.out = nn.Linear(width, width)

    def forward(self, x, attention_mask=None):
        v, gate = self.inner(zero_padding(x, attention_mask)).chunk(2, -1)
        length = x.shape[1]
        means = functional.pad(v, (0, 0, 0, -length % BLOCK)).unflatten(1, (-1, BLOCK)).mean(2)
        v = v + means.repeat_interleave(BLOCK, 1)[:, :length]  # the fault
        return self.out(short_convolution(v, self.filter) * functional.silu(gate))
