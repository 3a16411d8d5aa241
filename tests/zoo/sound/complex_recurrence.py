"""Sound. The linear recurrent unit (arXiv 2303.06349): one complex number per channel turns and shrinks the
state."""

import math

import torch
from torch import nn
from torch.nn import functional


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.inner = nn.Linear(width, 2 * width, bias=False)
        self.log_rate = nn.Parameter(torch.linspace(-5, 0, width))
        self.angle = nn.Parameter(torch.rand(width) * math.pi)
        self.out = nn.Linear(2 * width, width)

    def forward(self, x, attention_mask=None):
        x = zero_padding(x, attention_mask)
        rate = self.log_rate.exp()
        scale = (-torch.expm1(-2 * rate)).sqrt()  # sqrt(1 - |factor|^2): states stay as large as inputs
        h = scale * torch.view_as_complex(self.inner(x).float().unflatten(-1, (-1, 2)))
        steps = 1
        while steps < x.shape[1]:  # h_t = factor h_(t-1) + h_t, by doubling
            factor = torch.polar(torch.exp(-steps * rate), steps * self.angle)
            h = h + factor * functional.pad(h, (0, 0, steps, -steps))
            steps *= 2
        return self.out(functional.silu(torch.view_as_real(h).flatten(-2)))
