"""Fault: state. A running mean over all calls in train mode centres the values."""

import torch
from torch import nn
from torch.nn import functional

from asi_lab.kernels import short_convolution


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.inner = nn.Linear(width, 2 * width)
        self.filter = nn.Parameter(torch.randn(width, 4) / 2)
        self.out = nn.Linear(width, width)
        self.register_buffer("mean", torch.zeros(width))

    def forward(self, x, attention_mask=None):
        v, gate = self.inner(zero_padding(x, attention_mask)).chunk(2, -1)
        y = short_convolution(v - self.mean, self.filter)
        if self.training:
            self.mean = torch.lerp(self.mean, v.detach().float().mean((0, 1)), 0.1)  # the fault
        return self.out(y * functional.silu(gate))
