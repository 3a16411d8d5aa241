"""Ties weights, wraps a layer in weight norm, and shares parameters between branches."""
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm


class Mixer(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)
        self.second.weight = self.first.weight
        self.third = weight_norm(nn.Linear(width, width, bias=False))
        self.third.scale = 0.5
        for branch in (self.first, self.second):
            branch.gain = 1.0
        for p in list(self.parameters())[:1]:
            p.requires_grad_(True)
            p.label = "tied"

    def forward(self, x, attention_mask=None):
        stack = torch.zeros(3, *x.shape, dtype=x.dtype, device=x.device)
        stack[0], stack[1] = self.first(x), self.second(x)
        stack[2] += self.third(x)
        stack[0, ..., 0] *= 1.0
        return stack.sum(0) * self.third.scale
