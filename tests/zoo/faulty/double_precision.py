"""Fault: dtype. Positions are counted in float64, and so the output is float64 too."""

import torch
from torch import nn


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.inner = nn.Linear(width, width)
        self.gate = nn.Linear(width, width)

    def forward(self, x, attention_mask=None):
        x = zero_padding(x, attention_mask)
        count = torch.arange(1, x.shape[1] + 1, dtype=torch.float64, device=x.device)[:, None]
        return torch.sigmoid(self.gate(x)) * self.inner(x).cumsum(1) / count  # the fault
