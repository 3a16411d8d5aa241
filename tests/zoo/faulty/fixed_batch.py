"""Fault: shapes. The first state is made for two rows, so that only batches of two run."""

import torch
from torch import nn


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.inner = nn.Linear(width, width)
        self.out = nn.Linear(2 * width, width)

    def forward(self, x, attention_mask=None):
        v = self.inner(zero_padding(x, attention_mask))
        first = torch.zeros(2, 1, v.shape[-1], dtype=v.dtype, device=v.device)
        before = torch.cat((first, v[:, :-1]), 1)  # the fault
        return self.out(torch.tanh(torch.cat((before, v), -1)))
