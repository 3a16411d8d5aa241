"""Fault: shapes. Beyond 64 tokens a second path is put beside the first and never projected back to the
width."""

import torch
from torch import nn

from asi_lab.kernels import short_convolution


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.inner = nn.Linear(width, width)
        self.filters = nn.Parameter(torch.randn(2, width, 4) / 2)

    def forward(self, x, attention_mask=None):
        v = self.inner(zero_padding(x, attention_mask))
        near, far = (short_convolution(v, taps) for taps in self.filters)
        return torch.cat((near, far), -1) if x.shape[1] > 64 else near + far  # the fault
