"""Sound. Softmax attention to the last 32 tokens with a learned bias per distance, in blocks: linear cost."""

import torch
from torch import nn
from torch.nn import functional

WINDOW = 32


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.bias = nn.Parameter(torch.zeros(heads, WINDOW))
        self.out = nn.Linear(width, width, bias=False)
        place = torch.arange(WINDOW)
        distance = (WINDOW + place)[:, None] - torch.arange(2 * WINDOW)
        self.register_buffer("distance", distance, persistent=False)

    def forward(self, x, attention_mask=None):
        x = zero_padding(x, attention_mask)
        length = x.shape[1]
        qkv = functional.pad(self.qkv(x), (0, 0, 0, -length % WINDOW))
        q, k, v = qkv.unflatten(1, (-1, WINDOW)).unflatten(-1, (3, self.heads, -1)).unbind(3)
        # Each block of queries meets the block before it and its own: [B, N, 2 * WINDOW, H, K].
        k, v = (torch.cat((functional.pad(part, (0,) * 6 + (1, -1)), part), 2) for part in (k, v))
        scores = torch.einsum("bnqhk,bnshk->bnhqs", q, k) * q.shape[-1] ** -0.5
        allowed = ((self.distance >= 0) & (self.distance < WINDOW)).repeat(k.shape[1], 1, 1, 1)
        allowed[0, ..., :WINDOW] = False
        scores = scores + self.bias[:, self.distance.clamp(0, WINDOW - 1)]
        weights = scores.masked_fill(~allowed, -torch.inf).softmax(-1)
        o = torch.einsum("bnhqs,bnshv->bnqhv", weights, v)
        return self.out(o.flatten(3).flatten(1, 2)[:, :length])
