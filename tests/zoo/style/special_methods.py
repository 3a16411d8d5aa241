"""A context manager, an iterator and a comparison, as helpers of a layer."""
import torch
from torch import nn


class Segments:
    def __init__(self, length: int, size: int):
        self.length, self.size, self.at = length, size, 0

    def __iter__(self):
        return self

    def __next__(self):
        if self.at >= self.length:
            raise StopIteration
        self.at += self.size
        return slice(self.at - self.size, min(self.at, self.length))

    def __contains__(self, item):
        return 0 <= item < self.length

    def __eq__(self, other):
        return isinstance(other, Segments) and (self.length, self.size) == (other.length, other.size)

    def __hash__(self):
        return hash((self.length, self.size))

    def __bool__(self):
        return self.length > 0

    def __enter__(self):
        return self

    def __exit__(self, exc_type, exc, tb):
        return False


def counted(function):
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    wrapper.__name__, wrapper.__doc__ = function.__name__, function.__doc__
    return wrapper


class Mixer(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def __repr__(self):
        return f"{self.__class__.__name__}(width={self.scale.numel()}): {(self.__doc__ or '').strip()[:20]!r}"

    @counted
    def forward(self, x, attention_mask=None):
        with Segments(x.shape[1], 16) as segments:
            return torch.cat([x[:, part] * self.scale for part in segments], dim=1) if segments else x
