"""Linear attention in chunks, with einops for every change of shape."""
import torch
from einops import einsum, pack, rearrange, reduce, repeat, unpack
from einops.layers.torch import Rearrange
from torch import nn


class Mixer(nn.Module):
    def __init__(self, width, heads, chunk=32):
        super().__init__()
        self.heads, self.chunk = heads, chunk
        self.to_qkv = nn.Sequential(nn.Linear(width, 3 * width), Rearrange("b l (three h d) -> three b h l d", three=3, h=heads))
        self.out = nn.Linear(width, width)

    def forward(self, x, attention_mask=None):
        x = zero_padding(x, attention_mask)
        b, length, _ = x.shape
        pad = -length % self.chunk
        q, k, v = self.to_qkv(nn.functional.pad(x, (0, 0, 0, pad)))
        q, k = q.softmax(-1), k.softmax(-1)
        q, k, v = (rearrange(t, "b h (n c) d -> b h n c d", c=self.chunk) for t in (q, k, v))
        state = einsum(k, v, "b h n c k, b h n c v -> b h n k v").cumsum(2)
        state = torch.cat([torch.zeros_like(state[:, :, :1]), state[:, :, :-1]], 2)
        inner = einsum(q, k, "b h n i d, b h n j d -> b h n i j").tril()
        o = einsum(inner, v, "b h n i j, b h n j d -> b h n i d") + einsum(q, state, "b h n c k, b h n k v -> b h n c v")
        packed, shapes = pack([rearrange(o, "b h n c d -> b (n c) (h d)")], "b * d")
        (o,) = unpack(packed, shapes, "b * d")
        scale = reduce(o.abs(), "b l d -> b l 1", "mean") + repeat(o.new_ones(1), "1 -> b 1 1", b=b)
        return self.out(o / scale)[:, :length]
