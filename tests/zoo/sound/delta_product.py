"""Sound. Two delta-rule steps per token, as a sequence twice as long (DeltaProduct, arXiv 2502.10297)."""

import torch
from torch import nn

from asi_lab.kernels import delta_rule, l2_norm, rms_norm


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width, bias=False)
        self.kv = nn.Linear(width, 4 * width, bias=False)
        self.write = nn.Linear(width, 2 * heads)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x, attention_mask=None):
        x = zero_padding(x, attention_mask)
        q = l2_norm(self.query(x).unflatten(-1, (self.heads, -1)))
        kv = self.kv(x).unflatten(-1, (2, 2, self.heads, -1))  # step, key or value
        k, v = (part.flatten(1, 2) for part in kv.unbind(3))
        write = 2 * torch.sigmoid(self.write(x)).unflatten(-1, (2, self.heads)).flatten(1, 2)
        o, _ = delta_rule(q.repeat_interleave(2, 1), l2_norm(k), v, write)
        return self.out(rms_norm(o[:, 1::2]).flatten(2))  # read after the second step
