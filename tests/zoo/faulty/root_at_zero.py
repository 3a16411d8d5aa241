"""Fault: gradients. The length of the token before is a root of zero at the first token, where the gradient
is infinity times zero."""

import torch
from torch import nn
from torch.nn import functional


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.before = nn.Linear(width, width, bias=False)
        self.inner = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x, attention_mask=None):
        x = zero_padding(x, attention_mask)
        before = self.before(functional.pad(x, (0, 0, 1, -1)))
        length = before.square().sum(-1, keepdim=True).sqrt()  # the fault
        return self.out(torch.tanh(self.inner(x) + before / (length + 1)))
