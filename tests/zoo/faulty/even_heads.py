"""Fault: construction. One half of the heads looks near and one far: with three heads one is forgotten."""

import torch
from torch import nn

from asi_lab.kernels import l2_norm, linear_attention, short_convolution


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads, self.half = heads, heads // 2 * (width // heads)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.filter = nn.Parameter(torch.randn(self.half, 4) / 2)
        self.out = nn.Linear(width, width)

    def forward(self, x, attention_mask=None):
        q, k, v = self.qkv(zero_padding(x, attention_mask)).chunk(3, -1)
        near = short_convolution(v[..., : self.half], self.filter)
        q, k, v = (part.unflatten(-1, (self.heads, -1)) for part in (q, k, v))
        far, _ = linear_attention(l2_norm(q), l2_norm(k), v)
        far = far[:, :, : self.heads // 2].flatten(2)
        return self.out(torch.cat((near, far), -1))  # the fault
