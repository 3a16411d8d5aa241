"""Fault: causality. A convolution by FFT without zeros behind the sequence: its end wraps around to the
start."""

import torch
from torch import nn
from torch.nn import functional


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.inner = nn.Linear(width, 2 * width)
        self.rate = nn.Parameter(torch.linspace(-5, 0, width))
        self.out = nn.Linear(width, width)

    def forward(self, x, attention_mask=None):
        v, gate = self.inner(zero_padding(x, attention_mask)).float().chunk(2, -1)
        length = x.shape[1]
        taps = torch.exp(-torch.arange(length, device=x.device)[:, None] * functional.softplus(self.rate))
        spectrum = torch.fft.rfft(taps, dim=0)
        mixed = torch.fft.irfft(torch.fft.rfft(v, dim=1) * spectrum, length, 1)  # the fault
        return self.out(mixed * functional.silu(gate))
