"""Fault: batch. The time axis is brought to the front by a reshape instead of a transpose: rows are cut up
and shuffled."""

import torch
from torch import nn
from torch.nn import functional


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.inner = nn.Linear(width, 2 * width)
        self.rate = nn.Parameter(torch.linspace(-3, 3, width))
        self.out = nn.Linear(width, width)

    def forward(self, x, attention_mask=None):
        v, gate = self.inner(zero_padding(x, attention_mask)).chunk(2, -1)
        batch, length, width = v.shape
        h, steps = v.reshape(length, batch, width), 1  # the fault
        while steps < length:
            h = h + torch.sigmoid(self.rate) ** steps * functional.pad(h, (0, 0, 0, 0, steps, -steps))
            steps *= 2
        return self.out(h.reshape(batch, length, width) * functional.silu(gate))
