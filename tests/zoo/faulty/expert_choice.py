"""Fault: causality. Experts choose the best half of all tokens (arXiv 2202.09368), so whether a token is
chosen hangs on later ones."""

import torch
from torch import nn
from torch.nn import functional

from asi_lab.kernels import short_convolution


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.inner = nn.Linear(width, 2 * width)
        self.router = nn.Linear(width, 1)
        self.filter = nn.Parameter(torch.randn(width, 4) / 2)
        self.out = nn.Linear(width, width)

    def forward(self, x, attention_mask=None):
        x = zero_padding(x, attention_mask)
        v, gate = self.inner(x).chunk(2, -1)
        score = self.router(x).float()
        last = score.topk((x.shape[1] + 1) // 2, 1).values[:, -1:]
        v = v * torch.sigmoid(score) * (score >= last)  # the fault
        return self.out(short_convolution(v, self.filter) * functional.silu(gate))
