"""Fault: causality. Each token reads the memory after the next token has been written."""

from torch import nn
from torch.nn import functional

from asi_lab.kernels import l2_norm, linear_attention, rms_norm


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x, attention_mask=None):
        q, k, v = self.qkv(zero_padding(x, attention_mask)).chunk(3, -1)
        k, v = (functional.pad(part, (0, 0, -1, 1)) for part in (k, v))  # the fault
        q, k, v = (part.unflatten(-1, (self.heads, -1)) for part in (q, k, v))
        o, _ = linear_attention(l2_norm(q), l2_norm(k), v)
        return self.out(rms_norm(o).flatten(2))
