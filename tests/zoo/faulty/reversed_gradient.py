"""Fault: learning. A backward pass written by hand has the wrong sign and a factor of a million: finite,
never zero, and uphill."""

import torch
from torch import nn
from torch.nn import functional

from asi_lab.kernels import short_convolution


class Amplifier(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return -1e6 * gradient  # the fault


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.inner = nn.Linear(width, 2 * width)
        self.filter = nn.Parameter(torch.randn(width, 4) / 2)
        self.out = nn.Linear(width, width)

    def forward(self, x, attention_mask=None):
        v, gate = self.inner(zero_padding(x, attention_mask)).chunk(2, -1)
        return Amplifier.apply(self.out(short_convolution(v, self.filter) * functional.silu(gate)))
