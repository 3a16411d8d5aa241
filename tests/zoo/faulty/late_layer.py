"""Fault: state_dict. The gate is built in the first call: a new layer has no place for its saved weights,
and an optimizer made before never sees them."""

import torch
from torch import nn

from asi_lab.kernels import short_convolution


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.inner = nn.Linear(width, width)
        self.gate = None
        self.filter = nn.Parameter(torch.randn(width, 4) / 2)
        self.out = nn.Linear(width, width)

    def forward(self, x, attention_mask=None):
        x = zero_padding(x, attention_mask)
        if self.gate is None:
            self.gate = nn.Linear(x.shape[-1], x.shape[-1], device=x.device)  # the fault
        return self.out(short_convolution(self.inner(x), self.filter) * torch.sigmoid(self.gate(x)))
