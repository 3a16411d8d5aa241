"""Fault: causality. The memory of earlier chunks subtracts the first chunk instead of the own one: up to 64
tokens nothing is wrong, beyond them each chunk sees its end."""

from torch import nn
from torch.nn import functional

from asi_lab.kernels import l2_norm, rms_norm

CHUNK = 64


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x, attention_mask=None):
        length = x.shape[1]
        qkv = self.qkv(zero_padding(x, attention_mask)).float()
        qkv = functional.pad(qkv, (0, 0, 0, -length % CHUNK)).unflatten(1, (-1, CHUNK))
        q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).transpose(2, 4).unbind(3)
        q, k = l2_norm(q), l2_norm(k)
        near, sums = (q @ k.mT).tril() @ v, (k.mT @ v).cumsum(1)
        o = (near + q @ (sums - sums[:, :1])).transpose(2, 3).flatten(1, 2)[:, :length]  # the fault
        return self.out(rms_norm(o).flatten(2))
