"""Fault: causality. Channels are weighted by how much of their energy is slow, measured on the spectrum of
the whole sequence."""

import torch
from torch import nn

from asi_lab.kernels import short_convolution


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.inner = nn.Linear(width, width)
        self.filter = nn.Parameter(torch.randn(width, 4) / 2)
        self.gate = nn.Parameter(torch.ones(width))
        self.out = nn.Linear(width, width)

    def forward(self, x, attention_mask=None):
        v = self.inner(zero_padding(x, attention_mask))
        energy = torch.fft.rfft(v.float(), dim=1).abs().square()
        slow = energy[:, : energy.shape[1] // 4 + 1].sum(1) / (energy.sum(1) + 1e-6)
        v = v * torch.sigmoid(self.gate * slow)[:, None]  # the fault
        return self.out(short_convolution(v, self.filter))
