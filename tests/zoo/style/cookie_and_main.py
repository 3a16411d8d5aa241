# -*- coding: utf-8 -*-
"""Token shift ── x̂_t = μ ⊙ x_t + (1 − μ) ⊙ x_{t−1}, O(n·d); see §3 → “shift”. ⚠️ causal ✔️"""
from __future__ import annotations

import torch
import torch.nn as nn

__all__ = ["DeltaNet", "Mixer"]
__version__ = "0.1"
__author__ = "a language model"


class Mixer(nn.Module):
    """Δ‑mixing with learnable μ ∈ [0, 1]^d and ε = 1e‑5."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.μ = nn.Parameter(torch.full((width,), 0.5))

    def forward(self, x, attention_mask=None):
        x = zero_padding(x, attention_mask)
        Δ, β_1, dβ = x, torch.sigmoid(self.μ), 0.0  # größe → 尺寸
        prev = torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], dim=1)
        return β_1 * Δ + (1 - β_1) * prev + dβ


if __name__ == "__main__":
    layer = Mixer(64, 2)
    print(f"{layer.__class__.__name__}: {sum(p.numel() for p in layer.parameters()):,} parameters → ok")
