"""Fault: causality. The token shift rolls: the first token's predecessor is the last token."""

import torch
from torch import nn
from torch.nn import functional


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.up = nn.Linear(2 * width, 2 * width)
        self.down = nn.Linear(width, width)

    def forward(self, x, attention_mask=None):
        x = zero_padding(x, attention_mask)
        pair = torch.cat((x, x.roll(1, 1)), -1)  # the fault
        value, gate = self.up(pair).chunk(2, -1)
        return self.down(value * functional.gelu(gate))
