"""Sound. A gated MLP that sees each token and the one before it; it writes into a tensor in place."""

import torch
from torch import nn
from torch.nn import functional


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.up = nn.Linear(2 * width, 2 * width)
        self.down = nn.Linear(width, width)

    def forward(self, x, attention_mask=None):
        x = zero_padding(x, attention_mask)
        pair = torch.zeros(*x.shape[:2], 2 * x.shape[2], dtype=x.dtype, device=x.device)
        pair[..., : x.shape[2]] = x
        pair[:, 1:, x.shape[2] :] = x[:, :-1]
        value, gate = self.up(pair).chunk(2, -1)
        return self.down(value * functional.gelu(gate))
