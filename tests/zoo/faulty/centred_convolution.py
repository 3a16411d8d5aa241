"""Fault: causality. The short convolution is padded on both sides, so each token sees the next one."""

import torch
from torch import nn
from torch.nn import functional


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.inner = nn.Linear(width, 2 * width)
        self.filter = nn.Parameter(torch.randn(width, 1, 3) / 2)
        self.out = nn.Linear(width, width)

    def forward(self, x, attention_mask=None):
        v, gate = self.inner(zero_padding(x, attention_mask)).chunk(2, -1)
        mixed = functional.conv1d(v.mT, self.filter, padding=1, groups=x.shape[-1]).mT  # the fault
        return self.out(mixed * functional.silu(gate))
