"""Sound. Each head averages its past with a learned power of the distance as weight: a memory that fades
more slowly than any exponential. Tokens are normalised first: rounding errors of an FFT follow the loudest
one."""

import torch
from torch import nn
from torch.nn import functional

from asi_lab.kernels import rms_norm


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.inner = nn.Linear(width, 2 * width)
        self.power = nn.Parameter(torch.linspace(-1, 2, heads))
        self.out = nn.Linear(width, width)

    def forward(self, x, attention_mask=None):
        x = zero_padding(x, attention_mask)
        v, gate = self.inner(x).chunk(2, -1)
        length = x.shape[1]
        distance = torch.arange(1, length + 1, device=x.device)[:, None, None]
        taps = distance ** -functional.softplus(self.power)[:, None]  # [L, H, 1]
        heads = rms_norm(v.float()).unflatten(-1, (self.heads, -1))
        spectrum = torch.fft.rfft(heads, 2 * length, 1) * torch.fft.rfft(taps.float(), 2 * length, 0)
        mean = torch.fft.irfft(spectrum, 2 * length, 1)[:, :length] / taps.cumsum(0)
        return self.out(mean.flatten(2) * functional.silu(gate))
