"""Batches with padding, for layers that take no notice of a mask. The lab itself never pads a sequence;
whoever uses a discovered layer elsewhere calls it through this."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def masked(layer: nn.Module, x: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor | None, Any]:
    """What a causal layer returns for x [B, L, D] where padding (`attention_mask` [B, L] is 0, else 1) counts
    for nothing in the output, wherever it stands. A loss in slot two is the layer's own: it sees zeros there.

    The tokens of each row are moved to the left in their order, the layer runs without a mask, and its
    outputs [B, L, D] are put back where their tokens were. They are zero at padding.

    Raises:
        ValueError: the mask holds something else, as one that is added to scores does.
    """
    is_token = attention_mask != 0
    if not bool(((attention_mask == 1) | ~is_token).all()):
        raise ValueError("attention_mask must hold 1 for tokens and 0 for padding, got other values")
    order = is_token.logical_not().to(torch.uint8).argsort(dim=1, stable=True)[..., None].expand_as(x)
    tokens_first = x.masked_fill(~is_token[..., None], 0.0).gather(1, order)
    output, aux, cache = layer(tokens_first)
    return (
        torch.zeros_like(output).scatter(1, order, output).masked_fill(~is_token[..., None], 0.0),
        aux,
        cache,
    )
