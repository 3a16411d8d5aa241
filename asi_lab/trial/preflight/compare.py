"""How far two outputs differ, and where most."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

import torch
from torch import Tensor, nn

from asi_lab.records import Check
from asi_lab.trial.preflight.subject import TOLERANCE, Subject
from asi_lab.trial.preflight.trace import Line

_LOUDEST = 0.1
"""Rounding comes from the largest values around, so a deviation is also measured against this share of the
RMS of all positions, and of the largest row."""


ROUGHEST = 1e-2
"""Up to this share of the RMS a deviation may be rounding; that of sound layers with convolutions by Fourier
transform, multiplied with each other, comes to 1e-3."""


class Deviation(NamedTuple):
    """The largest deviation over the RMS, and the row, position and channel where it is."""

    value: float
    row: int = 0
    position: int = 0
    channel: int = 0


def deviation(found: Tensor, expected: Tensor, where: Tensor | None = None) -> Deviation:
    """Compare outputs [B, L, D] at the positions `where` [B, L] is True (everywhere without it), each row
    relative to the RMS of what is expected there."""
    found, expected = found.detach(), expected.detach()
    everywhere = torch.ones(expected.shape[:2], dtype=torch.bool)
    counts = everywhere if where is None else where
    loudest = torch.maximum(_rms(found, everywhere), _rms(expected, everywhere))
    scale = torch.maximum(_rms(expected, counts), _LOUDEST * loudest)
    return largest(found - expected, counts, scale)


def gradient_deviation(gradient: Tensor, before: Tensor) -> Deviation:
    """The gradient [B, L, D] where `before` [B, L] is False, relative to the RMS of each row's rest."""
    return largest(gradient, ~before, _rms(gradient, before))


def largest(difference: Tensor, at: Tensor, scale: Tensor) -> Deviation:
    """The largest difference [B, L, D] at the positions `at` [B, L], relative to the `scale` [B] of its row.

    Rows of a much smaller scale than the largest are measured against a share of that.
    """
    scale = torch.maximum(scale, 0.01 * _LOUDEST * scale.max()).clamp_min(1e-30)
    relative = (_at_least_float32(difference).abs() / scale[:, None, None]).nan_to_num(math.inf, math.inf)
    relative = relative.masked_fill(~at.to(relative.device).unsqueeze(-1), 0.0)
    row, position, channel = (int(i) for i in torch.unravel_index(relative.argmax(), relative.shape))
    return Deviation(float(relative[row, position, channel]), row, position, channel)


def _rms(x: Tensor, at: Tensor) -> Tensor:
    """Root mean square [B] of x [B, L, D] at the positions `at` [B, L]."""
    at = at.to(x.device).unsqueeze(-1)
    square = _at_least_float32(x).square().masked_fill(~at, 0.0).sum((1, 2))
    return (square / (at.sum((1, 2)).clamp_min(1) * x.shape[-1])).sqrt()


def _at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def settle(
    subject: Subject, compare: Callable[[torch.dtype], Deviation], roughest: float = ROUGHEST
) -> Deviation:
    """Make a comparison in float32, and where it finds a deviation, again in float64.

    Rounding, of a Fourier transform for example, is gone in float64; a leak stays. Where the layer does not
    run in float64 the first finding stands, and so it does beyond `roughest`, where rounding itself carries
    something: training computes in float32.
    """
    found = compare(torch.float32)
    if subject.tolerance < found.value <= max(roughest, subject.tolerance):
        with suppress(Exception), in_float64(subject.module):
            return compare(torch.float64)
    return found


@contextmanager
def in_float64(module: nn.Module) -> Iterator[None]:
    """Turn all parameters and buffers to float64 for a while."""
    kinds = [(parameter, parameter.dtype) for parameter in module.parameters()]
    buffers = [(part, dict(part._buffers)) for part in module.modules()]
    module.double()
    try:
        yield
    finally:
        for parameter, kind in kinds:
            parameter.data = parameter.data.to(kind)
        for part, held in buffers:
            part._buffers.update(held)


class Worst:
    """The largest deviation over many comparisons, and how it came about."""

    def __init__(self) -> None:
        self._found, self._tolerance = Deviation(0.0), TOLERANCE
        self._words = ""
        self._localise: Callable[[], Line | None] = lambda: None

    def see(
        self,
        subject: Subject,
        found: Deviation,
        words: str,
        localise: Callable[[], Line | None] = lambda: None,
        slack: float = 1.0,
    ) -> None:
        """Remember `found` if it is the largest, measured in tolerances of its subject, each `slack` times as
        large; `localise` finds the line responsible, later."""
        tolerance = slack * subject.tolerance
        if found.value / tolerance > self._found.value / self._tolerance:
            self._found, self._tolerance = found, tolerance
            self._words, self._localise = words, localise

    @property
    def is_bad(self) -> bool:
        """Whether a deviation was more than rounding."""
        return self._found.value > self._tolerance

    def check(self, name: str, otherwise: str) -> Check:
        """The verdict under a name; `otherwise` is its detail when it passed."""
        value, tolerance = self._found.value, self._tolerance
        if not self.is_bad:
            return Check(name, True, value, tolerance, otherwise)
        line = self._localise()
        detail = f"{self._words}{f'; first seen in {line}' if line else ''}"
        return Check(name, False, value, tolerance, detail, line=line.number if line else None)
