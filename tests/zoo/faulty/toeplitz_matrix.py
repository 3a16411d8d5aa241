"""Fault: growth. A long convolution per head as a product with a matrix of all pairs of tokens."""

import torch
from torch import nn
from torch.nn import functional


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.inner = nn.Linear(width, 2 * width)
        self.rate = nn.Parameter(torch.linspace(-3, 0, heads))
        self.out = nn.Linear(width, width)

    def forward(self, x, attention_mask=None):
        v, gate = self.inner(zero_padding(x, attention_mask)).chunk(2, -1)
        place = torch.arange(x.shape[1], device=x.device)
        distance = place[:, None] - place
        decay = torch.exp(-distance.clamp_min(0) * functional.softplus(self.rate)[:, None, None])  # the fault
        mixed = decay.tril() @ v.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        return self.out(mixed.transpose(1, 2).flatten(2) * functional.silu(gate))
