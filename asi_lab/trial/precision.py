"""Number formats of training.

fp32           everything in float32
bf16           matrix products in bfloat16 (autocast) over float32 weights
bf16_weights   bfloat16 weights and activations; gradients are summed, clipped and applied in float32, to
               float32 twins of the weights (bf16 parameters and fp32 reduction, as in the paper's A.2)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn


def is_mixed(device: torch.device, precision: str) -> bool:
    """Whether training uses bf16 for matrix products; `auto` means bf16 on a GPU, fp32 on a CPU."""
    return precision.startswith("bf16") or (precision == "auto" and device.type == "cuda")


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Mixed precision where it is asked for."""
    if is_mixed(device, precision):
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()


class MasterWeights:
    """float32 twins of a model's weights, which turn bfloat16.

    Each gradient is added to its twin's, in float32, as soon as backward has it, so that the sum over
    micro-batches loses nothing. Buffers keep their type.
    """

    def __init__(self, model: nn.Module) -> None:
        self._twins = {p: nn.Parameter(p.detach().clone()) for p in model.parameters() if p.requires_grad}
        self._rounded = False
        for weight in self._twins:
            weight.register_post_accumulate_grad_hook(self._collect)  # type: ignore[no-untyped-call]
        self.write()

    def twin(self, weight: nn.Parameter) -> nn.Parameter:
        """What the optimizer changes in the place of `weight`."""
        return self._twins[weight]

    def write(self) -> None:
        """Put the twins, rounded, into the model."""
        for weight, twin in self._twins.items():
            weight.data = twin.data.bfloat16()
        self._rounded = True

    def unround(self) -> None:
        """Put the twins themselves into the model."""
        for weight, twin in self._twins.items():
            weight.data = twin.data
        self._rounded = False

    @contextmanager
    def full(self) -> Iterator[None]:
        """The model computes with the float32 weights for a while."""
        self.unround()
        try:
            yield
        finally:
            self.write()

    def _collect(self, weight: Tensor) -> None:
        if not self._rounded:  # not of training
            return
        twin = self._twins[weight]  # type: ignore[index]
        assert weight.grad is not None
        gradient = weight.grad.float()
        twin.grad = gradient if twin.grad is None else twin.grad.add_(gradient)
        weight.grad = None
