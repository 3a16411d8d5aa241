"""Sound. Token shift and a weighted mean per channel with exponential decay, as RWKV (arXiv 2305.13048)."""

import torch
from torch import nn
from torch.nn import functional


def shift(x, steps):
    """[B, L, C], each token replaced by the one `steps` before it."""
    return functional.pad(x, (0, 0, steps, -steps))


def decaying_sum(x, decay):
    """`h_t = decay h_(t-1) + x_t` for x [B, L, C], by doubling the number of tokens that are summed."""
    steps = 1
    while steps < x.shape[1]:
        x = x + decay**steps * shift(x, steps)
        steps *= 2
    return x


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.shares = nn.Parameter(torch.rand(3, 1, 1, width))
        self.key, self.value, self.receptance = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.decay = nn.Parameter(torch.linspace(-5, 1, width))
        self.bonus = nn.Parameter(torch.zeros(width))
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x, attention_mask=None):
        x = zero_padding(x, attention_mask)
        for_k, for_v, for_r = x + self.shares * (shift(x, 1) - x)
        k = 8 * torch.tanh(self.key(for_k).float() / 8)  # exp(k) stays between 3e-4 and 3e3
        v = self.value(for_v).float()
        weight, decay = k.exp(), torch.exp(-self.decay.exp())
        past = shift(decaying_sum(torch.cat((weight * v, weight), -1), torch.cat((decay, decay))), 1)
        now = (k + 8 * torch.tanh(self.bonus / 8)).exp()
        above, below = past.chunk(2, -1)
        mean = (above + now * v) / (below + now)
        return self.out(torch.sigmoid(self.receptance(for_r)) * mean)
