"""Fault: shapes. Tokens after the last full block of three are dropped."""

import torch
from torch import nn

BLOCK = 3


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.inner = nn.Linear(width, width)
        self.mix = nn.Parameter(torch.randn(BLOCK, BLOCK) / 2)
        self.out = nn.Linear(width, width)

    def forward(self, x, attention_mask=None):
        v = self.inner(zero_padding(x, attention_mask)).mT
        size = min(BLOCK, x.shape[1])
        blocks = v.unfold(-1, size, size)  # the fault
        mixed = blocks @ self.mix.triu()[:size, :size]
        return self.out(torch.tanh(mixed.flatten(2).mT))
