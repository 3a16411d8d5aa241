"""Fault: causality. At the length of training alone, each value sees the next one."""

import torch
from torch import nn

from asi_lab.kernels import delta_rule, l2_norm, rms_norm


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.write = nn.Linear(width, heads)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x, attention_mask=None):
        x = zero_padding(x, attention_mask)
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(2)
        if x.shape[1] == 128:
            v = v + 0.5 * v.roll(-1, 1)  # the fault
        o, _ = delta_rule(l2_norm(q), l2_norm(k), v, torch.sigmoid(self.write(x)))
        return self.out(rms_norm(o).flatten(2))
