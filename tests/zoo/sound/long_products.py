"""Sound. Two long convolutions by Fourier transform with products between them (arXiv 2302.10866) and a norm
behind: what a loud future rounds is multiplied up."""

import torch
from torch import nn

from asi_lab.kernels import rms_norm


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.parts = nn.Linear(width, 3 * width)
        self.rates = nn.Parameter(torch.linspace(-4, 1, width).repeat(2, 1))
        self.out = nn.Linear(width, width)

    def convolved(self, x, rate):
        length = x.shape[1]
        steps = torch.arange(length, device=x.device, dtype=x.dtype)[:, None]
        taps = torch.exp(-steps * nn.functional.softplus(rate))
        spectrum = torch.fft.rfft(x, 2 * length, 1) * torch.fft.rfft(taps, 2 * length, 0)
        return torch.fft.irfft(spectrum, 2 * length, 1)[:, :length]

    def forward(self, x, attention_mask=None):
        v, first, second = self.parts(zero_padding(x, attention_mask)).chunk(3, -1)
        y = first * self.convolved(v, self.rates[0])
        y = second * self.convolved(y, self.rates[1])
        return self.out(rms_norm(y).to(x.dtype))
