"""Fault: batch. The router's softmax runs over the rows of the batch instead of the paths."""

import torch
from torch import nn

from asi_lab.kernels import short_convolution


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.inner = nn.Linear(width, width)
        self.router = nn.Linear(width, 2)
        self.filters = nn.Parameter(torch.randn(2, width, 4) / 2)
        self.out = nn.Linear(width, width)

    def forward(self, x, attention_mask=None):
        x = zero_padding(x, attention_mask)
        v = self.inner(x)
        share = self.router(x).softmax(0)  # the fault
        paths = torch.stack([short_convolution(v, taps) for taps in self.filters], -1)
        return self.out((paths * share[..., None, :]).sum(-1))
