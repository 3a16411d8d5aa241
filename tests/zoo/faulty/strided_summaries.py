"""Fault: growth. Each token attends to the means of all earlier groups of four tokens: a quarter of
quadratic is quadratic."""

import torch
from torch import nn
from torch.nn import functional

GROUP = 4


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x, attention_mask=None):
        q, k, v = self.qkv(zero_padding(x, attention_mask)).chunk(3, -1)
        short = -x.shape[1] % GROUP
        k, v = (functional.pad(part, (0, 0, 0, short)).unflatten(1, (-1, GROUP)).mean(2) for part in (k, v))
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (q, k, v))
        ends = GROUP * torch.arange(1, k.shape[2] + 1, device=x.device)
        started = ends <= torch.arange(x.shape[1], device=x.device)[:, None]
        scores = q @ k.mT * q.shape[-1] ** -0.5
        o = scores.masked_fill(~started, -1e9).softmax(-1) * started @ v  # the fault
        return self.out(o.transpose(1, 2).flatten(2))
