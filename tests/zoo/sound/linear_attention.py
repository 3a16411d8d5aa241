"""Sound. Linear attention with the feature map elu + 1 and a causal normaliser (arXiv 2006.16236)."""

from torch import nn
from torch.nn import functional

from asi_lab.kernels import linear_attention


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x, attention_mask=None):
        x = zero_padding(x, attention_mask)
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(2)
        q, k = functional.elu(q) + 1, functional.elu(k) + 1
        o, _ = linear_attention(q, k, v, scale=1.0)
        total = (q * k.float().cumsum(1)).sum(-1, keepdim=True)
        return self.out((o / total.clamp_min(1e-6)).flatten(2))
