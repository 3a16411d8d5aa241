"""Sound. Gated dilated convolutions that double their reach, as in WaveNet (arXiv 1609.03499); all levels
share one projection."""

import torch
from torch import nn
from torch.nn import functional


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int, levels: int = 5):
        super().__init__()
        self.filters = nn.ParameterList(torch.randn(width, 1, 3) / 2 for _ in range(levels))
        self.shared = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x, attention_mask=None):
        x = zero_padding(x, attention_mask)
        for level, taps in enumerate(self.filters):
            reach = 2**level
            past = functional.pad(x.mT, (2 * reach, 0))
            mixed = functional.conv1d(past, taps, dilation=reach, groups=x.shape[-1]).mT
            value, gate = self.shared(mixed).chunk(2, -1)
            x = x + torch.tanh(value) * torch.sigmoid(gate)
        return self.out(x)
