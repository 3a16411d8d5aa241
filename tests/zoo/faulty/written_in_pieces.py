"""Fault: growth. Chunks are written into a tensor one by one, and the whole gradient is copied for each."""

import torch
from torch import nn

CHUNK = 16


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.inner = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x, attention_mask=None):
        x = zero_padding(x, attention_mask)
        v = self.inner(x)
        result = torch.empty_like(v)
        for start in range(0, x.shape[1], CHUNK):
            result[:, start : start + CHUNK] = v[:, start : start + CHUNK].cumsum(1)  # the fault
        return self.out(result)
