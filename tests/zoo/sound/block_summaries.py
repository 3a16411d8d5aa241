"""Sound. Each token mixes the means of the two last complete blocks of 16 tokens with its neighbours."""

import torch
from torch import nn
from torch.nn import functional

from asi_lab.kernels import short_convolution

BLOCK = 16


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.inner = nn.Linear(width, 2 * width)
        self.filter = nn.Parameter(torch.randn(width, 4) / 2)
        self.share = nn.Parameter(torch.ones(2, width))
        self.out = nn.Linear(width, width)

    def forward(self, x, attention_mask=None):
        x = zero_padding(x, attention_mask)
        v, gate = self.inner(x).chunk(2, -1)
        length = x.shape[1]
        means = functional.pad(v, (0, 0, 0, -length % BLOCK)).unflatten(1, (-1, BLOCK)).mean(2)
        last, before = (functional.pad(means, (0, 0, blocks, 0))[:, : means.shape[1]] for blocks in (1, 2))
        summary = self.share[0] * last + self.share[1] * before
        near = short_convolution(v, self.filter)
        return self.out((near + summary.repeat_interleave(BLOCK, 1)[:, :length]) * functional.silu(gate))
