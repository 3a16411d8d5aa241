"""TypedDict, Annotated, generics and forward references in quotes."""
from __future__ import annotations

from typing import Annotated, Any, Generic, List, Literal, Optional, Tuple, TypedDict, TypeVar, Union, cast

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)
Heads = Annotated[int, "number of heads", {"open": True}]
Mode = Union[Literal["open", "eval", "chunk.v2"], None]


class State(TypedDict, total=False):
    memory: Tensor
    position: int


class Wrapped(nn.Module, Generic[M]):
    def __init__(self, inner: "M", mode: "Mode" = "open") -> None:
        super().__init__()
        self.inner, self.mode = inner, mode

    def forward(self, x: "Tensor", *args: "Any") -> "Tuple[Tensor, Optional[State]]":
        state: "State" = {"position": x.shape[1]}
        return cast("Tensor", self.inner(x)), state


class Mixer(nn.Module):
    layers: "List[Wrapped[nn.Linear]]"

    def __init__(self, width: int, heads: Heads) -> None:
        super().__init__()
        self.inner: Wrapped[nn.Linear] = Wrapped(nn.Linear(width, width))

    def forward(self, x: Tensor, attention_mask: "torch.Tensor | None" = None) -> "torch.Tensor":
        y, state = self.inner(x)
        return y / max(1, cast(int, (state or {}).get("position", 1)) ** 0)
