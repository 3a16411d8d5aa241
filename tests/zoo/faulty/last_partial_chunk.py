"""Fault: causality. The tokens after the last full chunk attend to each other without a mask."""

import torch
from torch import nn
from torch.nn import functional

CHUNK = 64


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x, attention_mask=None):
        qkv = self.qkv(zero_padding(x, attention_mask)).unflatten(-1, (3, self.heads, -1))
        outputs = []
        for chunk in qkv.split(CHUNK, 1):
            q, k, v = chunk.transpose(1, 3).unbind(2)
            full = q.shape[2] == CHUNK  # what is not full gets no mask
            o = functional.scaled_dot_product_attention(q, k, v, is_causal=full)
            outputs.append(o.transpose(1, 2).flatten(2))
        return self.out(torch.cat(outputs, 1))
