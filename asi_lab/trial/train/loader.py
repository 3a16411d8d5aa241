"""Batches on the device before they are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Batches(Protocol):
    """Batches of tokens by step, as `TokenStream` gives them."""

    def batch(self, step: int) -> NDArray[np.int64]:
        """Tokens [B, L + 1] of a step, counted from 0."""


def prefetched(stream: Batches, steps: range, device: torch.device) -> Iterator[tuple[int, Tensor]]:
    """Each step with its tokens [B, L + 1] on `device`.

    While one step trains, a thread gathers the next one's tokens; for a GPU into pinned memory, from where
    they are copied while it computes.
    """

    def gather(step: int) -> Tensor:
        tokens = torch.from_numpy(stream.batch(step))
        return tokens.pin_memory() if device.type == "cuda" else tokens

    with ThreadPoolExecutor(1, "loader") as pool:
        pending = {step: pool.submit(gather, step) for step in steps[:1]}
        for step in steps:
            tokens = pending.pop(step).result()
            if (following := step + steps.step) in steps:
                pending[following] = pool.submit(gather, following)
            yield step, tokens.to(device, non_blocking=True)
