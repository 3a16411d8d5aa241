"""Fault: growth. A Gaussian kernel on the distances between all pairs of tokens."""

import torch
from torch import nn


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.inner = nn.Linear(width, width)
        self.place = nn.Linear(width, 8)
        self.out = nn.Linear(width, width)

    def forward(self, x, attention_mask=None):
        x = zero_padding(x, attention_mask)
        place = self.place(x).float()
        distance = torch.cdist(place, place.detach(), compute_mode="donot_use_mm_for_euclid_dist")
        weight = torch.exp(-distance).tril()
        mean = weight / weight.sum(-1, keepdim=True) @ self.inner(x).float()  # the fault
        return self.out(mean)
