"""Fault: causality. Learned positions are a function of the position over the length, so they move when
tokens follow."""

import torch
from torch import nn
from torch.nn import functional

from asi_lab.kernels import short_convolution


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.position = nn.Sequential(nn.Linear(1, 32), nn.GELU(), nn.Linear(32, width))
        self.inner = nn.Linear(width, 2 * width)
        self.filter = nn.Parameter(torch.randn(width, 4) / 2)
        self.out = nn.Linear(width, width)

    def forward(self, x, attention_mask=None):
        place = torch.linspace(0, 1, x.shape[1], device=x.device)[:, None]  # the fault
        x = zero_padding(x + self.position(place), attention_mask)
        v, gate = self.inner(x).chunk(2, -1)
        return self.out(short_convolution(v, self.filter) * functional.silu(gate))
