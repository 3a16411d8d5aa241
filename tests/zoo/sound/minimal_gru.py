"""Sound. The minimal GRU as a parallel scan over logarithms (arXiv 2410.01201)."""

import torch
from torch import nn
from torch.nn import functional


def log_positive(x):
    """The logarithm of x + 1/2 for positive x, of sigmoid(x) for others: states are positive."""
    return torch.where(x >= 0, (functional.relu(x) + 0.5).log(), -functional.softplus(-x))


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.inner = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x, attention_mask=None):
        x = zero_padding(x, attention_mask)
        update, candidate, gate = self.inner(x).float().chunk(3, -1)
        # h_t = (1 - z_t) h_(t-1) + z_t c_t, with all products as sums of logarithms.
        kept = functional.logsigmoid(-update).cumsum(1)
        written = functional.logsigmoid(update) + log_positive(candidate)
        h = torch.exp(kept + torch.logcumsumexp(written - kept, 1))
        return self.out(h * functional.silu(gate))
