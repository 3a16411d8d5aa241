"""Sound. The gated delta rule with short convolutions (arXiv 2412.06464)."""

import torch
from torch import nn
from torch.nn import functional

from asi_lab.kernels import gated_delta_rule, l2_norm, rms_norm, short_convolution


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.filter = nn.Parameter(torch.randn(3 * width, 4) / 2)
        self.gates = nn.Linear(width, 2 * heads)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x, attention_mask=None):
        x = zero_padding(x, attention_mask)
        qkv = short_convolution(self.qkv(x), self.filter, activation="silu")
        q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).unbind(2)
        decay, write = self.gates(x).chunk(2, -1)
        decay, write = functional.logsigmoid(decay + 4), torch.sigmoid(write)
        o, _ = gated_delta_rule(l2_norm(q), l2_norm(k), v, decay, write)
        return self.out(rms_norm(o).flatten(2))
