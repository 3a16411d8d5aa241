"""Sound. Log-linear attention (arXiv 2506.04761): a token reads its past in blocks that double in size,
each with a weight of its own. Work grows with n log n."""

import torch
from torch import nn
from torch.nn import functional

from asi_lab.kernels import l2_norm


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.level = nn.Linear(width, 2 * heads)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x, attention_mask=None):
        x = zero_padding(x, attention_mask)
        length = x.shape[1]
        levels = (length - 1).bit_length()
        padded = functional.pad(x, (0, 0, 0, 2**levels - length))
        q, k, v = self.qkv(padded).float().unflatten(-1, (3, self.heads, -1)).unbind(2)
        k = l2_norm(k)
        offset, slope = self.level(padded).float().unflatten(-1, (2, self.heads, 1)).unbind(2)
        o = torch.sigmoid(offset) * (q * k).sum(-1, keepdim=True) * v  # level 0: the token itself
        for level in range(1, levels + 1):
            o = o + torch.sigmoid(offset + level * slope) * self.read(q, k, v, 2 ** (level - 1))
        return self.out(o[:, :length].flatten(2))

    @staticmethod
    def read(q, k, v, half):
        """In each block of two halves the tokens of the second read all of the first."""
        q, k, v = (part.unflatten(1, (-1, 2, half)) for part in (q, k, v))
        memory = torch.einsum("bnshk,bnshv->bnhkv", k[:, :, 0], v[:, :, 0])
        second = torch.einsum("bnshk,bnhkv->bnshv", q[:, :, 1], memory)
        return torch.stack((torch.zeros_like(second), second), 2).flatten(1, 3)
