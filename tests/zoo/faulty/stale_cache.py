"""Fault: state. The scale of each token is kept from the last call of the same shape, whatever it held."""

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
        self.scale = torch.zeros(0)

    def forward(self, x, attention_mask=None):
        x = zero_padding(x, attention_mask)
        if self.scale.shape[:2] != x.shape[:2]:
            self.scale = torch.rsqrt(x.detach().square().mean(-1, keepdim=True) + 1e-5)  # the fault
        v, gate = self.inner(x * self.scale).chunk(2, -1)
        return self.out(short_convolution(v, self.filter) * functional.silu(gate))
