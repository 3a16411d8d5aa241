"""Helper classes inside the layer, properties with setters, class and static methods."""
from __future__ import annotations

from typing import Any, Optional

import torch
import torch.nn as nn


class Mixer(nn.Module):
    class Gate(nn.Module):
        def __init__(self, width: int, bias: float = 0.0):
            super(Mixer.Gate, self).__init__()
            self.linear = nn.Linear(width, width)
            nn.init.constant_(self.linear.bias, bias)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.sigmoid(self.linear(x))

    _registry: dict[str, type[nn.Module]] = {"gate": Gate}

    def __init__(self, width: int, heads: int, **kwargs: Any) -> None:
        super().__init__()
        self._temperature = 1.0
        self.gate = self._registry["gate"](width, bias=1.0)
        self.value = self.build(width)
        self.temperature = float(kwargs.pop("temperature", 1.0))

    @property
    def temperature(self) -> float:
        """Of the gate."""
        return self._temperature

    @temperature.setter
    def temperature(self, value: float) -> None:
        self._temperature = max(value, 1e-3)

    @classmethod
    def build(cls, width: int) -> nn.Linear:
        return nn.Linear(width, width, bias=False)

    @staticmethod
    def merge(x: torch.Tensor, y: Optional[torch.Tensor] = None) -> torch.Tensor:
        return x if y is None else x + y

    def forward(self, x, attention_mask=None):
        return self.merge(self.gate(x / self.temperature) * self.value(x))
