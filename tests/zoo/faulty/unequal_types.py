"""Fault: dtype. A float32 state is interpolated towards tokens that are bfloat16 under autocast, which lerp
refuses; it shows only where a preset trains with mixed precision."""

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
        h, states = torch.zeros(x.shape[0], x.shape[2], device=x.device), []
        for token in v.unbind(1):
            h = torch.lerp(h, token, torch.sigmoid(self.rate))  # the fault
            states.append(h)
        return self.out(torch.stack(states, 1) * functional.silu(gate))
