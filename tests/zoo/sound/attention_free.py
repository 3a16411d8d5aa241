"""Sound. An attention-free transformer (AFT-simple, arXiv 2105.14103): a weighted mean of the past whose
exponentials are kept in range by the running maximum of the keys."""

import torch
from torch import nn
from torch.nn import functional


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x, attention_mask=None):
        x = zero_padding(x, attention_mask)
        q, k, v = self.qkv(x).float().chunk(3, -1)
        highest = k.detach().cummax(1).values
        weight = torch.exp(k - highest)
        rescale = torch.exp(-highest.diff(dim=1, prepend=highest[:, :1]))
        sums, steps = torch.stack((weight * v, weight), 1), 1
        while steps < x.shape[1]:  # h_t = rescale_t h_(t-1) + h_t, by doubling
            sums = sums + rescale[:, None] * functional.pad(sums, (0, 0, steps, -steps))
            rescale = rescale * functional.pad(rescale, (0, 0, steps, -steps))
            steps *= 2
        above, below = sums.unbind(1)
        return self.out(torch.sigmoid(q) * above / below)
