"""The options in a frozen dataclass with derived properties."""
from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, List, Optional

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class MixerConfig:
    width: int
    heads: int = 4
    dilations: List[int] = field(default_factory=lambda: [1, 2, 4])
    dropout: float = 0.0
    note: Optional[str] = None
    VERSION: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.width % self.heads != 0:
            raise ValueError(f"width ({self.width}) must be divisible by heads ({self.heads})")

    @property
    def head_dim(self) -> int:
        return self.width // self.heads


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.config = replace(MixerConfig(width, heads), dropout=0.0)
        self.mix = nn.Parameter(torch.ones(len(self.config.dilations), width) / len(self.config.dilations))

    def forward(self, x: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        padded = nn.functional.pad(x, (0, 0, max(self.config.dilations), 0))
        taps = [padded[:, max(self.config.dilations) - d :][:, : x.shape[1]] for d in self.config.dilations]
        return torch.stack(taps, dim=-1).mul(self.mix.T).sum(-1)
