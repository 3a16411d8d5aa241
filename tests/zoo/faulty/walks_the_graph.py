"""Fault: names. The graph behind the input leads to what the trainer computed before, down to its weights."""

import torch
from torch import nn

from asi_lab.kernels import short_convolution


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.filter = nn.Parameter(torch.randn(width, 4) / 2)
        self.out = nn.Linear(width, width)

    def forward(self, x, attention_mask=None):
        before = x.grad_fn.next_functions if x.grad_fn is not None else ()  # the fault
        y = short_convolution(zero_padding(x, attention_mask), self.filter, activation="silu")
        return self.out(y) + 0.0 * len(before)
