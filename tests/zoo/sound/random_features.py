"""Sound. Softmax attention estimated by random features (Performer, arXiv 2009.14794). The features are
drawn once and saved with the weights."""

import torch
from torch import nn

from asi_lab.kernels import l2_norm, linear_attention


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.register_buffer("directions", torch.randn(heads, width // heads, width // heads))

    def forward(self, x, attention_mask=None):
        x = zero_padding(x, attention_mask)
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(2)
        q, k = self.features(q), self.features(k)
        o, _ = linear_attention(q, k, v, scale=1.0)
        return self.out((o / (q * k.cumsum(1)).sum(-1, keepdim=True)).flatten(2))

    def features(self, x):
        """[B, L, H, K], positive. Vectors of length 2 keep the exponentials in range."""
        unit = 2 * l2_norm(x.float())
        return torch.exp(torch.einsum("blhk,hkf->blhf", unit, self.directions).float() - 2)
