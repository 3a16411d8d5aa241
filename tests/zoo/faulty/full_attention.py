"""Fault: growth. Plain causal attention, hidden in an einsum."""

import torch
from torch import nn


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x, attention_mask=None):
        q, k, v = self.qkv(zero_padding(x, attention_mask)).unflatten(-1, (3, self.heads, -1)).unbind(2)
        later = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).triu(1)
        scores = torch.einsum("bqhk,bshk->bhqs", q * q.shape[-1] ** -0.5, k)
        weights = scores.masked_fill(later, -torch.inf).softmax(-1)  # the fault
        return self.out(torch.einsum("bhqs,bshv->bqhv", weights, v).flatten(2))
