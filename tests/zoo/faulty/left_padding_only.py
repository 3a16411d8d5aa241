"""Fault: padding. The number of padded tokens is right, but they are always taken to stand on the left."""

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

    def forward(self, x, attention_mask=None):
        if attention_mask is not None:
            padded = (attention_mask == 0).sum(1, keepdim=True)
            x = zero_padding(x, torch.arange(x.shape[1], device=x.device) >= padded)  # the fault
        v, gate = self.inner(x).chunk(2, -1)
        return self.out(short_convolution(v, self.filter) * functional.silu(gate))
