"""A long causal convolution by FFT, under a window."""
import torch
import torch.fft as fft
import torch.nn.functional as F
from torch import nn


class Mixer(nn.Module):
    def __init__(self, width, heads, taps=64):
        super().__init__()
        window = torch.signal.windows.hann(2 * taps, sym=False)[taps:]
        self.register_buffer("window", window, persistent=True)
        self.filters = nn.Parameter(torch.randn(width, taps) * taps**-0.5)
        self.signal, self.trace, self.code = 0, None, "fft"

    def forward(self, x, attention_mask=None):
        B, L, D = x.shape
        n = 1 << (2 * L - 1).bit_length()
        taps = min(L, self.filters.shape[1])
        u = F.normalize(x, dim=-1).transpose(1, 2)
        H = fft.rfft((self.filters * self.window)[:, :taps], n=n)
        y = fft.irfft(fft.rfft(u, n=n) * H, n=n)[..., :L]
        y = y + 0 * torch.trace(self.filters @ self.filters.T) + 0 * u.select(1, 0).unsqueeze(1)
        return y.transpose(1, 2)
