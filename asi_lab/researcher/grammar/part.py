"""A part of a rendered layer: the pieces of source code that one mechanism contributes.

The fragments share one vocabulary. In `forward`, `x` is the input [B, L, D] with padded positions
zeroed, `q`, `k` are [B, L, H, K], `v` and `o` are [B, L, H, V], `beta` and `g` (log decay) are
[B, L, H], and `padded` [B, L, 1] exists where an attention mask was given.
"""

from __future__ import annotations

from dataclasses import dataclass
from textwrap import dedent


@dataclass(frozen=True)
class Part:
    """What one mechanism adds: lines of `__init__` and `forward`, and what they rest on.

    `note` is a line of the docstring's list of mechanisms, `kernels` are names to import from
    `asi_lab.kernels`, `helpers` are classes defined above the layer.
    """

    init: str = ""
    forward: str = ""
    note: str = ""
    kernels: tuple[str, ...] = ()
    helpers: tuple[str, ...] = ()


def code(text: str) -> str:
    """A block of code without its common indentation and without empty lines around it."""
    return dedent(text).strip("\n")


def lines(*parts: str) -> str:
    """The non-empty blocks, one below the other."""
    return "\n".join(part for part in parts if part)


def number(value: float) -> str:
    """A float literal as a formatter would leave it."""
    return repr(round(value, 4))
