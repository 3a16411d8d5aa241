"""Sound. A selective state space as in Mamba (arXiv 2312.00752): step, input and output weights depend on
the token. Chunks of 16 tokens are scanned in parallel and computed again in the backward pass."""

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from asi_lab.kernels import short_convolution

CHUNK = 16


def scan_chunk(state, log_decay, x):
    """`h_t = exp(log_decay_t) h_(t-1) + x_t` from `state` [B, D, N] on, for x [B, C, D, N]."""
    steps = 1
    while steps < x.shape[1]:
        earlier = functional.pad(x, (0, 0, 0, 0, steps, -steps))
        x = x + log_decay.exp() * earlier
        log_decay = log_decay + functional.pad(log_decay, (0, 0, 0, 0, steps, -steps))
        steps *= 2
    return x + log_decay.exp() * state[:, None]


def read_chunk(state, log_decay, write, read):
    """The outputs [B, C, D] and the last state [B, D, N]."""
    states = scan_chunk(state, log_decay, write)
    return (states * read[:, :, None]).sum(-1), states[:, -1]


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int, states: int = 4):
        super().__init__()
        self.inner = nn.Linear(width, 2 * width, bias=False)
        self.filter = nn.Parameter(torch.randn(width, 4) / 2)
        self.select = nn.Linear(width, width + 2 * states)
        self.log_rate = nn.Parameter(torch.log(1.0 + torch.arange(states)).repeat(width, 1))
        self.skip = nn.Parameter(torch.ones(width))
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x, attention_mask=None):
        x = zero_padding(x, attention_mask)
        u, gate = self.inner(x).chunk(2, -1)
        u = short_convolution(u, self.filter, activation="silu")
        states = self.log_rate.shape[1]
        step, write, read = self.select(u).float().split((u.shape[-1], states, states), -1)
        step = functional.softplus(step - 2)
        log_decay = -step[..., None] * self.log_rate.exp()
        write = (step * u)[..., None] * write[:, :, None]
        state, outputs = torch.zeros_like(write[:, 0]), []
        for chunk in zip(*(part.split(CHUNK, 1) for part in (log_decay, write, read)), strict=True):
            y, state = checkpoint(read_chunk, state, *chunk, use_reentrant=False)
            outputs.append(y)
        return self.out((torch.cat(outputs, 1) + self.skip * u) * functional.silu(gate))
