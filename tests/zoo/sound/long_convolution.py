"""Sound. A gated convolution as long as the sequence, its filter written by a small network of the position
and applied by zero-padded FFT, as in Hyena (arXiv 2302.10866). The rounding errors of an FFT follow its
loudest token, later ones included: so each token is normalised before."""

import torch
from torch import nn
from torch.nn import functional

from asi_lab.kernels import rms_norm


def causal_convolution(x, taps):
    """`y_t = sum_s taps_s x_(t-s)` for x [B, L, D] and taps [L, D], padded so that nothing wraps."""
    length = x.shape[1]
    spectrum = torch.fft.rfft(x.float(), 2 * length, 1) * torch.fft.rfft(taps.float(), 2 * length, 0)
    return torch.fft.irfft(spectrum, 2 * length, 1)[:, :length]


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.inner = nn.Linear(width, 3 * width)
        self.filter = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, width))
        self.decay = nn.Parameter(torch.linspace(-5, 0, width))
        self.out = nn.Linear(width, width)
        self.register_buffer("frequencies", 2.0 ** -torch.arange(8), persistent=False)

    def taps(self, length):
        """[L, D]. Tap s is the same for every length: positions are absolute, not shares of the length."""
        position = torch.arange(length, device=self.decay.device)[:, None]
        angle = position * self.frequencies
        features = torch.cat((angle.sin(), angle.cos()), -1)
        return self.filter(features) * torch.exp(-position * functional.softplus(self.decay))

    def forward(self, x, attention_mask=None):
        x = zero_padding(x, attention_mask)
        a, b, v = self.inner(x).chunk(3, -1)
        return self.out(a * causal_convolution(rms_norm(b * v), self.taps(x.shape[1])))
