"""Fault: cost. A recurrence is solved by 600 sweeps over the sequence where the doubling of a few would
do."""

import torch
from torch import nn
from torch.nn import functional


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.inner = nn.Linear(width, 2 * width)
        self.rate = nn.Parameter(torch.linspace(-3, 1, width))
        self.out = nn.Linear(width, width)

    def forward(self, x, attention_mask=None):
        v, gate = self.inner(zero_padding(x, attention_mask)).chunk(2, -1)
        rate, h = torch.sigmoid(self.rate), v
        for _ in range(600):
            h = v + rate * functional.pad(h, (0, 0, 1, -1))  # the fault
        return self.out(h * functional.silu(gate))
