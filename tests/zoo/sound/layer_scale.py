"""Sound. A scale per channel that starts at zero (LayerScale, arXiv 2103.17239): at initialisation the
output is zero everywhere. Queries and keys share one projection."""

import torch
from torch import nn

from asi_lab.kernels import delta_rule, l2_norm


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.key.weight = self.query.weight
        self.write = nn.Linear(width, heads)
        self.scale = nn.Parameter(torch.zeros(width))

    def forward(self, x, attention_mask=None):
        x = zero_padding(x, attention_mask)
        layers = (self.query, self.key, self.value)
        q, k, v = (layer(x).unflatten(-1, (self.heads, -1)) for layer in layers)
        o, _ = delta_rule(l2_norm(q), l2_norm(k), v, torch.sigmoid(self.write(x)), scale=1.0)
        return self.scale * o.flatten(2)
