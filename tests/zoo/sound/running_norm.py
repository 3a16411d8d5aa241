"""Sound. Values are normalised by mean and variance over time, both of the past alone."""

import torch
from torch import nn
from torch.nn import functional


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.inner = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x, attention_mask=None):
        x = zero_padding(x, attention_mask)
        v, gate = self.inner(x).float().chunk(2, -1)
        count = torch.arange(1, x.shape[1] + 1, device=x.device)[:, None]
        mean = v.cumsum(1) / count
        spread = (v - mean).square().cumsum(1) / count  # from each token's own mean: never negative
        return self.out((v - mean) * torch.rsqrt(spread + 1e-2) * functional.silu(gate))
