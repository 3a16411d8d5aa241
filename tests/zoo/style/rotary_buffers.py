"""Rotary positions with cached tables in buffers that are not saved."""
import torch
import torch.nn as nn


class Rotary(nn.Module):
    inv_freq: torch.Tensor

    def __init__(self, dim: int, base: float = 10_000.0):
        super().__init__()
        self.register_buffer("inv_freq", 1.0 / (base ** (torch.arange(0, dim, 2).float() / dim)))

    @torch.autocast("cpu", enabled=False)
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        t = torch.arange(x.shape[1], device=x.device, dtype=torch.float32)
        freqs = torch.einsum("i,j->ij", t, self.inv_freq.float())
        cos, sin = freqs.cos()[None, :, None], freqs.sin()[None, :, None]
        x1, x2 = x[..., ::2], x[..., 1::2]
        return torch.stack((x1 * cos - x2 * sin, x1 * sin + x2 * cos), dim=-1).flatten(-2).to(x.dtype)


class Mixer(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads, self.rotary = heads, Rotary(width // heads // 2 * 2)
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
        for i, scale in enumerate([0.5, 1.0]):
            self.register_buffer(f"scale_{i}", torch.tensor(scale), persistent=False)

    def forward(self, x, attention_mask=None):
        q, k = (self.rotary(p(x).unflatten(-1, (self.heads, -1))).flatten(-2) for p in (self.q, self.k))
        buffers = dict(self.named_buffers())
        return (q * k).tanh() * self.v(x) * buffers["scale_1"] * self._buffers["scale_1"]
