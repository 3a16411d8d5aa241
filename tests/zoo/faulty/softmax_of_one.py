"""Fault: gradients. The router chooses among one path per head: its softmax is 1, whatever it learns."""

import torch
from torch import nn

from asi_lab.kernels import short_convolution


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.inner = nn.Linear(width, width)
        self.router = nn.Linear(width, heads)
        self.filter = nn.Parameter(torch.randn(width, 4) / 2)
        self.out = nn.Linear(width, width)

    def forward(self, x, attention_mask=None):
        x = zero_padding(x, attention_mask)
        paths = short_convolution(self.inner(x), self.filter).unflatten(-1, (self.heads, 1, -1))
        share = self.router(x).unflatten(-1, (self.heads, 1, 1)).softmax(-2)  # the fault
        return self.out(torch.tanh((paths * share).sum(-2)).flatten(2))
