"""Sound. Dropout of values and of the whole attention path, row by row, in train mode only (DropPath, arXiv
1605.07648)."""

import torch
from torch import nn

from asi_lab.kernels import l2_norm, linear_attention, rms_norm, short_convolution


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.filter = nn.Parameter(torch.randn(width, 4) / 2)
        self.drop = nn.Dropout(0.1)
        self.out = nn.Linear(width, width)

    def forward(self, x, attention_mask=None):
        x = zero_padding(x, attention_mask)
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(2)
        far, _ = linear_attention(q, l2_norm(k), self.drop(v))
        far = rms_norm(far).flatten(2)
        if self.training:
            far = far * (torch.rand(x.shape[0], 1, 1, device=x.device) > 0.1)
        return self.out(far + short_convolution(x, self.filter))
