"""A small number type with operators of its own: (decay, update) pairs under their scan."""
from typing import Iterator, NamedTuple, Tuple, TypeVar, Union, overload

import torch
from torch import Tensor, nn

T = TypeVar("T", bound="Pair")


class Pair:
    __slots__ = ("a", "b")

    def __init__(self, a: Tensor, b: Tensor) -> None:
        self.a, self.b = a, b

    def __matmul__(self, other: "Pair") -> "Pair":
        return Pair(self.a * other.a, other.a * self.b + other.b)

    def __iter__(self) -> Iterator[Tensor]:
        yield from (self.a, self.b)

    def __len__(self) -> int:
        return self.a.shape[1]

    def __getitem__(self, i: Union[int, slice]) -> "Pair":
        return type(self)(self.a[:, i], self.b[:, i])

    def __repr__(self) -> str:
        return f"{type(self).__name__}(len={len(self)})"


class Output(NamedTuple):
    y: Tensor
    state: Tuple[Tensor, ...] = ()


class Mixer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.decay, self.value = nn.Linear(width, width), nn.Linear(width, width)

    @overload
    def scan(self, pair: Pair) -> Output: ...

    def scan(self, pair):
        step, length = 1, len(pair)
        while step < length:
            head, tail = pair[:step], pair[: length - step] @ pair[step:]
            pair, step = Pair(*(torch.cat(both, 1) for both in zip(head, tail))), step * 2
        return Output(y=pair.b)

    def forward(self, x, attention_mask=None):
        return self.scan(Pair(torch.sigmoid(self.decay(x)), self.value(x))).y
