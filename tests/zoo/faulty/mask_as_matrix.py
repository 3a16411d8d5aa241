"""Fault: growth. The running sum is a product with a triangle of ones, which is kept for the backward
pass."""

import torch
from torch import nn
from torch.nn import functional

from asi_lab.kernels import rms_norm


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.inner = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x, attention_mask=None):
        v, gate = self.inner(zero_padding(x, attention_mask)).chunk(2, -1)
        causal = torch.ones(x.shape[1], x.shape[1], dtype=v.dtype, device=x.device).tril()
        return self.out(rms_norm(causal @ v) * functional.silu(gate))  # the fault
