"""Sound. Retention with a fixed decay per head (arXiv 2307.08621), parallel in train mode and token by
token in eval mode: two ways of computing the same, equal up to rounding."""

import torch
from torch import nn
from torch.nn import functional

from asi_lab.kernels import l2_norm, linear_attention, rms_norm


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkvg = nn.Linear(width, 4 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.register_buffer("decay", 1 - 2.0 ** (-5 - torch.arange(heads)))

    def forward(self, x, attention_mask=None):
        x = zero_padding(x, attention_mask)
        q, k, v, gate = self.qkvg(x).unflatten(-1, (4, self.heads, -1)).unbind(2)
        q, k = l2_norm(q), l2_norm(k)
        if self.training:
            o, _ = linear_attention(q, k, v, self.decay.log().expand(q.shape[:3]))
        else:
            o = self.step_by_step(q * q.shape[-1] ** -0.5, k, v)
        return self.out((rms_norm(o) * functional.silu(gate)).flatten(2))

    def step_by_step(self, q, k, v):
        memory, outputs = 0.0, []
        for q_t, k_t, v_t in zip(q.unbind(1), k.unbind(1), v.unbind(1), strict=True):
            memory = self.decay[:, None, None] * memory + k_t[..., None] * v_t[..., None, :]
            outputs.append((q_t[..., None] * memory).sum(-2))
        return torch.stack(outputs, 1)
