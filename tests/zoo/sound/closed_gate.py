"""Sound. Attention behind a scalar gate that starts at zero, beside a convolution (ReZero, arXiv
2003.04887): at initialisation no gradient reaches the attention."""

import torch
from torch import nn

from asi_lab.kernels import l2_norm, linear_attention, short_convolution


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.filter = nn.Parameter(torch.randn(width, 4) / 2)
        self.gate = nn.Parameter(torch.zeros(()))
        self.out = nn.Linear(width, width)

    def forward(self, x, attention_mask=None):
        x = zero_padding(x, attention_mask)
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(2)
        far, _ = linear_attention(q, l2_norm(k), v)
        return self.out(short_convolution(x, self.filter) + self.gate * far.flatten(2))
