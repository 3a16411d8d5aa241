"""Sound. A leaky recurrent network as a plain loop over tokens from a learned first state: slow, but
linear. The recurrent matrix is divided by its norm, so that no gradient explodes."""

import torch
from torch import nn


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.inner = nn.Linear(width, width)
        self.recurrent = nn.Parameter(torch.randn(width, width))
        self.leak = nn.Parameter(torch.linspace(-3, 3, width))
        self.first = nn.Parameter(torch.zeros(width))
        self.out = nn.Linear(width, width)

    def forward(self, x, attention_mask=None):
        x = zero_padding(x, attention_mask)
        matrix, leak = self.recurrent / self.recurrent.norm(), torch.sigmoid(self.leak)
        h, states = self.first.expand(x.shape[0], -1), []
        for token in self.inner(x).unbind(1):  # indexing x[:, t] would cost a gradient of full length each
            h = h + leak * (torch.tanh(token + h @ matrix) - h)
            states.append(h)
        return self.out(torch.stack(states, 1))
