"""`match` on strings, on shapes and on classes, and the walrus."""
from typing import Any

import torch
from torch import Tensor, nn


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int, gate: str = "sigmoid", options: dict[str, Any] | None = None):
        super().__init__()
        match gate.lower().split(":"):
            case ["sigmoid" | "tanh" as kind]:
                self.kind, self.power = kind, 1.0
            case ["power", exponent, *_]:
                self.kind, self.power = "power", float(exponent)
            case _:
                raise ValueError(f"unknown gate {gate!r}")
        match options or {}:
            case {"bias": bool(bias), **rest} if not rest:
                self.proj = nn.Linear(width, width, bias=bias)
            case _:
                self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        match self.proj:
            case nn.Linear(weight=weight, bias=None):
                g = x @ weight.T
            case nn.Linear(in_features=n, out_features=m) if n == m:
                g = self.proj(x)
        match tuple(x.shape):
            case (batch, length, width) if (n := batch * length) > 0:
                g = g / max(1.0, width / max(n, width))
        return x * (torch.sigmoid(g) if self.kind == "sigmoid" else torch.tanh(g)).abs() ** self.power
