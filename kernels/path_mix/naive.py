"""Routing over parallel paths as the formulas say, and the numbers all forms share."""

from collections.abc import Sequence

import torch
from torch import Tensor

from asi_lab.kernels.common import compute_dtype

MAX_LOGIT = 1e30
"""Logits are cut off at plus and minus this, so that infinite ones open or close a path."""

MIN_TEMPERATURE = 1e-6
"""Temperatures are cut off here: twice `MAX_LOGIT` over this is still finite in float32."""


def naive_path_mix(
    paths: Sequence[Tensor],
    logits: Tensor,
    sigmoid: bool,
    groups: Sequence[int] | None,
    temperature: Tensor | float,
    floor: Tensor | float,
) -> tuple[Tensor, Tensor, Tensor]:
    """paths are n of `[B, T, H, V]`, logits `[B, T, H, n]` or, with groups, `[B, T, H, G + n]`.

    Returns o `[B, T, H, V]`, weights `[B, T, H, n]` and their entropy `[B, T, H]`.
    """
    stacked = torch.stack(promote(paths), dim=-2)
    dtype = compute_dtype(stacked)
    inverse, floor = inverse_temperature(temperature, dtype), as_dtype(floor, dtype)
    logits = logits.to(dtype).clamp(-MAX_LOGIT, MAX_LOGIT)
    if sigmoid:
        weights = floor + (1 - floor) * torch.sigmoid(logits * inverse)
        closed = (1 - floor) * torch.sigmoid(-logits * inverse)
        entropy = (_surprise(weights) + _surprise(closed)).sum(-1)
    else:
        if groups is None:
            shares = _softmax(logits, inverse)
        else:
            of_groups, of_paths = logits.split_with_sizes((len(groups), len(paths)), -1)
            budgets = _softmax(of_groups, inverse).unbind(-1)
            inside = (_softmax(part, inverse) for part in of_paths.split_with_sizes(tuple(groups), -1))
            shares = torch.cat([b[..., None] * s for b, s in zip(budgets, inside, strict=True)], dim=-1)
        total = (floor + torch.zeros_like(shares)).sum(-1, keepdim=True)
        weights = floor + (1 - total) * shares
        entropy = _surprise(weights).sum(-1)
    o = (weights[..., None] * stacked.to(dtype)).sum(-2).to(stacked.dtype)
    return o, weights, entropy


def promote(paths: Sequence[Tensor]) -> list[Tensor]:
    """The paths in their common floating dtype."""
    dtype = paths[0].dtype
    for path in paths:
        dtype = torch.promote_types(dtype, path.dtype)
    return [path.to(dtype) for path in paths]


def as_dtype(x: Tensor | float, dtype: torch.dtype) -> Tensor | float:
    """A tensor in that dtype; a number as it is."""
    return x.to(dtype) if isinstance(x, Tensor) else x


def inverse_temperature(temperature: Tensor | float, dtype: torch.dtype) -> Tensor | float:
    """1 / temperature, with a last dimension of one for the logits if it is a tensor."""
    if isinstance(temperature, Tensor):
        return temperature.to(dtype).clamp(min=MIN_TEMPERATURE).reciprocal().unsqueeze(-1)
    return 1 / max(temperature, MIN_TEMPERATURE)


def _softmax(logits: Tensor, inverse: Tensor | float) -> Tensor:
    """Differences first: dividing large logits by the temperature would round them apart."""
    difference = logits - logits.amax(-1, keepdim=True).detach()
    return torch.softmax(difference * inverse, dim=-1)


def _surprise(weights: Tensor) -> Tensor:
    """`-w log w`, 0 and of finite slope where w is 0."""
    return -weights * weights.clamp(min=torch.finfo(weights.dtype).tiny).log()
