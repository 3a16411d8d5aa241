"""Fault: causality. A cumulative sum that runs from the end to the start."""

from torch import nn
from torch.nn import functional

from asi_lab.kernels import rms_norm


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.inner = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x, attention_mask=None):
        v, gate = self.inner(zero_padding(x, attention_mask)).float().chunk(2, -1)
        total = v.flip(1).cumsum(1).flip(1)  # the fault
        return self.out(rms_norm(total) * functional.silu(gate))
