"""Fault: cost. A decaying memory is scanned over all tokens at once instead of in chunks: n log n, but with a
matrix per token and level of the scan."""

import torch
from torch import nn
from torch.nn import functional

from asi_lab.kernels import l2_norm, rms_norm


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.decay = nn.Parameter(torch.linspace(1, 4, width))
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x, attention_mask=None):
        q, k, v = self.qkv(zero_padding(x, attention_mask)).float().chunk(3, -1)
        memory, steps = l2_norm(k)[..., None] * v[..., None, :], 1
        while steps < x.shape[1]:
            earlier = functional.pad(memory, (0, 0, 0, 0, steps, -steps))
            memory = memory + torch.sigmoid(self.decay) ** steps * earlier  # the fault
            steps *= 2
        return self.out(rms_norm((l2_norm(q)[..., None] * memory).sum(-2)))
