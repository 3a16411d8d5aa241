"""Fault: causality. A recurrent loop that starts at the last token."""

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
        rate = torch.sigmoid(self.rate)
        h, states = torch.zeros_like(v[:, 0]), []
        for token in reversed(v.unbind(1)):
            h = h + rate * (token - h)
            states.append(h)
        return self.out(torch.stack(states[::-1], 1) * functional.silu(gate))  # the fault
