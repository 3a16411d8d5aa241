"""Sound. A softmax router mixes three paths per head: nearby tokens, decaying attention, a running mean. An
auxiliary loss in slot two keeps the router's entropy up."""

import torch
from torch import nn

from asi_lab.kernels import l2_norm, linear_attention, rms_norm, short_convolution


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.filter = nn.Parameter(torch.randn(width, 7) / 3)
        self.decay = nn.Linear(width, heads)
        self.router = nn.Linear(width, 3 * heads)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x, attention_mask=None):
        x = zero_padding(x, attention_mask)
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(2)
        near = short_convolution(v.flatten(2), self.filter).unflatten(-1, (self.heads, -1))
        far, _ = linear_attention(q, l2_norm(k), v, nn.functional.logsigmoid(self.decay(x) + 3))
        count = torch.arange(1, x.shape[1] + 1, device=x.device)[:, None, None]
        mean = v.float().cumsum(1) / count
        paths = torch.stack([rms_norm(path.float()) for path in (near, far, mean)], -1)
        log_share = self.router(x).float().unflatten(-1, (self.heads, 1, 3)).log_softmax(-1)
        entropy = -(log_share.exp() * log_share).sum(-1).mean()
        return self.out((paths * log_share.exp()).sum(-1).flatten(2)), -0.01 * entropy
