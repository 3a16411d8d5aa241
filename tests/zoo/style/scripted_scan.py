"""A scan with types and constants as TorchScript wants them."""
from typing import Final, List, Optional, Tuple

import torch
from torch import Tensor, nn


def scan(a: Tensor, b: Tensor, initial: Optional[Tensor] = None) -> Tuple[Tensor, Tensor]:
    # type: (Tensor, Tensor, Optional[Tensor]) -> Tuple[Tensor, Tensor]
    h = torch.zeros_like(b[:, 0]) if initial is None else initial
    out: List[Tensor] = []
    for a_t, b_t in zip(a.unbind(1), b.unbind(1)):
        h = a_t * h + b_t
        out.append(h)
    return torch.stack(out, 1), h


class Mixer(nn.Module):
    __constants__ = ["heads"]
    heads: Final[int]

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.a, self.b = nn.Linear(width, width), nn.Linear(width, width)

    @torch.jit.unused
    def gates(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.a(x))

    def forward(self, x, attention_mask=None):
        y, _ = scan(self.gates(x), self.b(x))
        return y
