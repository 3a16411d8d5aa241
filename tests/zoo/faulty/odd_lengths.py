"""Fault: causality. Means of token pairs are cut to length at the wrong end: where the length is odd, all
of them come one token early."""

from torch import nn
from torch.nn import functional


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.inner = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x, attention_mask=None):
        v, gate = self.inner(zero_padding(x, attention_mask)).chunk(2, -1)
        length = x.shape[1]
        pairs = functional.pad(v, (0, 0, 0, length % 2)).unflatten(1, (-1, 2)).mean(2)
        # The mean of a pair arrives with the second of its tokens.
        behind = functional.pad(pairs.repeat_interleave(2, 1), (0, 0, 1, 0))
        return self.out((v + behind[:, -1 - length : -1]) * functional.silu(gate))  # the fault
