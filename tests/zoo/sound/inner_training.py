"""Sound. Each head trains a linear model on its own past by one gradient step per chunk of 16 tokens (TTT,
arXiv 2407.04620). Inside a chunk every token sees the steps of the tokens up to itself."""

import torch
from torch import nn
from torch.nn import functional

from asi_lab.kernels import l2_norm, rms_norm

CHUNK = 16


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.rate = nn.Linear(width, heads)
        self.start = nn.Parameter(torch.randn(heads, width // heads, width // heads) / 10)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x, attention_mask=None):
        x = zero_padding(x, attention_mask)
        length = x.shape[1]
        x = functional.pad(x, (0, 0, 0, -length % CHUNK))
        q, k, v = self.qkv(x).float().unflatten(-1, (3, self.heads, -1)).transpose(1, 3).unbind(2)
        # The rates of a chunk sum to 1 at most, so that its step cannot overshoot.
        rate = torch.sigmoid(self.rate(x).float()).mT / CHUNK
        chunks = (part.unflatten(2, (-1, CHUNK)).unbind(2) for part in (l2_norm(q), l2_norm(k), v, rate))
        model, outputs = self.start, []
        for q_C, k_C, v_C, rate_C in zip(*chunks, strict=True):  # [B, H, CHUNK, K]
            step = rate_C[..., None] * (v_C - k_C @ model)
            outputs.append(q_C @ model + (q_C @ k_C.mT).tril() @ step)
            model = model + k_C.mT @ step
        o = torch.cat(outputs, 2).transpose(1, 2)[:, :length]
        return self.out(rms_norm(o).flatten(2))
