"""Sound. Softmax attention inside chunks of 64 tokens and a linear memory of the chunks before, joined by a
gate per head (Infini-attention, arXiv 2404.07143)."""

import torch
from einops import rearrange
from torch import nn
from torch.nn import functional

CHUNK = 64


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.gate = nn.Parameter(torch.zeros(heads, 1, 1))
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x, attention_mask=None):
        x = zero_padding(x, attention_mask)
        length = x.shape[1]
        qkv = functional.pad(self.qkv(x), (0, 0, 0, -length % CHUNK))
        q, k, v = rearrange(qkv, "b (n c) (p h k) -> p b n h c k", c=CHUNK, p=3, h=self.heads)
        near = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        q, k = functional.elu(q) + 1, functional.elu(k) + 1
        far = q @ self.before(k.mT @ v) / (q @ self.before(k.sum(-2)[..., None]) + 1)
        share = torch.sigmoid(self.gate)
        o = rearrange(share * near + (1 - share) * far, "b n h c k -> b (n c) (h k)")
        return self.out(o[:, :length])

    @staticmethod
    def before(states):
        """Sums over the earlier chunks alone. Shifting first keeps the own chunk out, rounding included."""
        return functional.pad(states, (0,) * 6 + (1, -1)).float().cumsum(1)
