"""Fault: shapes. The running variance divides by the tokens so far less one: the first token is NaN."""

import torch
from torch import nn
from torch.nn import functional


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.inner = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x, attention_mask=None):
        v, gate = self.inner(zero_padding(x, attention_mask)).float().chunk(2, -1)
        before = torch.arange(x.shape[1], device=x.device)[:, None]
        centred = v - v.cumsum(1) / (before + 1)
        variance = centred.square().cumsum(1) / before  # the fault
        return self.out(centred * torch.rsqrt(variance + 1e-2) * functional.silu(gate))
