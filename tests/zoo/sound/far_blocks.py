"""Sound. A delta memory beside sums of closed blocks of 200 tokens, which are felt from token 200 on."""

import torch
from torch import nn
from torch.nn import functional

from asi_lab.kernels import delta_rule, l2_norm

BLOCK = 200


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.write = nn.Linear(width, heads)
        self.far_query = nn.Linear(width, width, bias=False)
        self.far_gain = nn.Parameter(torch.ones(heads, 1))
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x, attention_mask=None):
        x = zero_padding(x, attention_mask)
        length = x.shape[1]
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(2)
        k = l2_norm(k)
        near, _ = delta_rule(l2_norm(q), k, v, torch.sigmoid(self.write(x)))
        far = l2_norm(self.far_query(x).unflatten(-1, (self.heads, -1)))
        blocks = [functional.pad(t, (0, 0, 0, 0, 0, -length % BLOCK)) for t in (far, k, v)]
        far, k, v = (t.unflatten(1, (-1, BLOCK)) for t in blocks)
        sums = torch.einsum("bnchk,bnchv->bnhkv", k, v).cumsum(1) / BLOCK
        before = functional.pad(sums, (0, 0, 0, 0, 0, 0, 1, 0))[:, :-1]
        far = torch.einsum("bnchk,bnhkv->bnchv", far, before).flatten(1, 2)[:, :length]
        return self.out((near + self.far_gain * far).flatten(2))
