"""Sound. Two of four experts write each token's value; the choice is hard forward and soft backward
(straight through, arXiv 1308.3432). The balance loss in slot two looks at the whole batch, as it may."""

import torch
from torch import nn
from torch.nn import functional

from asi_lab.kernels import l2_norm, linear_attention, rms_norm


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int, experts: int = 4):
        super().__init__()
        self.heads = heads
        self.qk = nn.Linear(width, 2 * width, bias=False)
        self.experts = nn.Parameter(torch.randn(experts, width, width) * width**-0.5)
        self.router = nn.Linear(width, experts, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x, attention_mask=None):
        x = zero_padding(x, attention_mask)
        soft = self.router(x).float().softmax(-1)
        top = soft.topk(2, -1).indices
        hard = functional.one_hot(top, soft.shape[-1]).sum(-2) / 2
        chosen = hard + soft - soft.detach()
        values = torch.einsum("bld,edv->blev", x, self.experts)
        v = (chosen[..., None] * values).sum(2).unflatten(-1, (self.heads, -1))
        q, k = self.qk(x).unflatten(-1, (2, self.heads, -1)).unbind(2)
        o, _ = linear_attention(q, l2_norm(k), v)
        balance = (hard.mean((0, 1)) * soft.mean((0, 1))).sum() * soft.shape[-1]
        return self.out(rms_norm(o).flatten(2)), 0.01 * balance
