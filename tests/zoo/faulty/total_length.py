"""Fault: causality. The running sum is divided by the length of the sequence instead of the tokens so far:
the length tells how much is still to come."""

from torch import nn
from torch.nn import functional


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.inner = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x, attention_mask=None):
        v, gate = self.inner(zero_padding(x, attention_mask)).float().chunk(2, -1)
        mean = v.cumsum(1) / x.shape[1]  # the fault
        return self.out(mean * functional.silu(gate))
