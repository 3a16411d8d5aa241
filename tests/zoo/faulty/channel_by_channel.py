"""Fault: cost. A recurrent loop over tokens and, inside, over single channels."""

import torch
from torch import nn
from torch.nn import functional


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.inner = nn.Linear(width, 2 * width)
        self.rate = nn.Parameter(torch.linspace(-3, 1, width))
        self.out = nn.Linear(width, width)

    def forward(self, x, attention_mask=None):
        v, gate = self.inner(zero_padding(x, attention_mask)).chunk(2, -1)
        channels = []
        for channel, rate in zip(v.unbind(-1), torch.sigmoid(self.rate).unbind(), strict=True):
            h, states = 0.0, []
            for token in channel.unbind(1):
                h = rate * h + (1 - rate) * token  # the fault
                states.append(h)
            channels.append(torch.stack(states, 1))
        return self.out(torch.stack(channels, -1) * functional.silu(gate))
