"""Activations by name, from a table of functions; `Literal` types for the options."""
import math
from typing import Callable, Dict, Literal, Optional

import torch
import torch.nn as nn
import torch.nn.functional as F

ACT2FN: Dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "silu": F.silu,
    "gelu": lambda t: 0.5 * t * (1.0 + torch.tanh(math.sqrt(2 / math.pi) * (t + 0.044715 * t**3))),
    "elu1": lambda t: F.elu(t) + 1.0,
    "identity": nn.Identity(),
}
Activation = Literal["silu", "gelu", "elu1", "identity"]


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int, activation: Activation = "elu1", gate_act: Optional[str] = None):
        super().__init__()
        if activation not in ACT2FN:
            raise ValueError(f"Unknown activation {activation!r}; expected one of {sorted(ACT2FN)}")
        self.act, self.gate_act = ACT2FN[activation], ACT2FN[gate_act or "silu"]
        self.proj = nn.Linear(width, width)

    def forward(self, x: "torch.Tensor", attention_mask: "Optional[torch.Tensor]" = None) -> "torch.Tensor":
        return self.gate_act(self.proj(x)) * self.act(x)
