"""Chunks under activation checkpointing, a state handed from chunk to chunk, `nonlocal` counters."""
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


class Mixer(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.update, self.read = nn.Linear(width, width), nn.Linear(2 * width, width)

    def step(self, chunk, state):
        new = state + self.update(chunk).mean(1, keepdim=True)
        return self.read(torch.cat([chunk, state.expand_as(chunk)], -1)), new

    def forward(self, x, attention_mask=None):
        state, outputs, seen = x.new_zeros(x.shape[0], 1, x.shape[2]), [], 0

        def count(n):
            nonlocal seen
            seen += n
            return seen

        for chunk in x.split(32, dim=1):
            if self.training and torch.is_grad_enabled():
                y, state = checkpoint(self.step, chunk, state, use_reentrant=False)
            else:
                y, state = self.step(chunk, state)
            outputs.append(y)
            assert count(y.size(1)) <= x.size(1), "more tokens than there are: %d of %d" % (seen, x.size(1))
        return torch.cat(outputs, dim=1)
