"""Sound. A maximum over the past that leaks away: `h_t = max(h_(t-1) - rate, v_t)`, as one cummax."""

import torch
from torch import nn
from torch.nn import functional


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.inner = nn.Linear(width, 2 * width)
        self.rate = nn.Parameter(torch.linspace(-5, 0, width))
        self.out = nn.Linear(width, width)

    def forward(self, x, attention_mask=None):
        x = zero_padding(x, attention_mask)
        v, gate = self.inner(x).float().chunk(2, -1)
        fallen = torch.arange(x.shape[1], device=x.device)[:, None] * functional.softplus(self.rate)
        h = (v + fallen).cummax(1).values - fallen
        return self.out(h * torch.sigmoid(gate))
