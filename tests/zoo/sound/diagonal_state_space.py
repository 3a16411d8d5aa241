"""Sound. A diagonal state space with complex modes, its kernel applied by FFT, as S4D (arXiv 2206.11893).
Tokens are normalised before, since the rounding errors of an FFT follow its loudest token."""

import math

import torch
from torch import nn
from torch.nn import functional

from asi_lab.kernels import rms_norm


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int, modes: int = 4):
        super().__init__()
        self.step = nn.Parameter(torch.empty(width, 1).uniform_(-7, -2))
        self.log_damping = nn.Parameter(torch.full((width, modes), math.log(0.5)))
        self.frequency = nn.Parameter(math.pi * torch.arange(modes).repeat(width, 1))
        self.weight = nn.Parameter(torch.randn(2, width, modes))
        self.skip = nn.Parameter(torch.ones(width))
        self.out = nn.Linear(width, 2 * width)

    def kernel(self, length):
        """[D, L]: damped cosines and sines of the position."""
        step = torch.sigmoid(self.step)
        position = torch.arange(length, device=step.device)
        envelope = torch.exp(-(step * self.log_damping.exp())[..., None] * position)
        angle = (step * self.frequency)[..., None] * position
        cosine, sine = self.weight[..., None] * step[..., None]
        return (envelope * (cosine * angle.cos() + sine * angle.sin())).sum(1)

    def forward(self, x, attention_mask=None):
        x = rms_norm(zero_padding(x, attention_mask))
        length = x.shape[1]
        spectrum = torch.fft.rfft(x.float().mT, 2 * length) * torch.fft.rfft(self.kernel(length), 2 * length)
        y = torch.fft.irfft(spectrum, 2 * length)[..., :length].mT + self.skip * x
        return functional.glu(self.out(functional.gelu(rms_norm(y))), -1)
