"""What is checked: a function from hidden states to hidden states, under one condition of its parameters.

A fault may hide behind a gate that is shut at initialisation. So the checks that look for leaks and dead
parameters run under several conditions: as the layer was built, with all its parameters randomised, after
a few overfit steps, and again on the trained model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

SEED = 1234
"""Every call starts from this state of the random generators, so that dropout drops the same."""

MODES = ("eval", "train")

TOLERANCE = 1e-4
"""Largest deviation of a layer, relative to the RMS of a row, that counts as rounding in float32."""

FLOOR = 0.5
"""Least spread of the noise that randomises a vector or scalar parameter."""

Result = tuple[Tensor, Tensor | None]
"""Output [B, L, D], and the auxiliary loss (a scalar) where there is one."""


class ContractBroken(ValueError):
    """What the layer returned is not what the contract says."""


@dataclass(frozen=True, eq=False)
class Subject:
    """Something to check under one condition.

    `forward` maps inputs [B, L, D], and a mask where one is given, to a `Result`; `draw` makes inputs for a
    batch size and a length. `module` is switched between train and eval mode; `layers` are the candidate's
    layers in it. Deviations up to `tolerance`, relative to the RMS, count as rounding.
    """

    condition: str
    module: nn.Module
    layers: tuple[nn.Module, ...]
    forward: Callable[..., Result]
    draw: Callable[[int, int], Tensor]
    tolerance: float = TOLERANCE

    def __call__(self, x: Tensor, mask: Tensor | None = None, seed: int = SEED) -> Tensor:
        """The output [B, L, D], from a fixed state of the random generators."""
        torch.manual_seed(seed)
        return (self.forward(x) if mask is None else self.forward(x, mask))[0]

    def trains_as_it_runs(self) -> bool:
        """Whether train mode gives the same numbers as eval mode: no dropout, no statistics of the batch."""
        x = self.draw(2, 100)
        outputs = []
        with torch.no_grad():
            for mode in MODES:
                self.module.train(mode == "train")
                outputs.append(self(x))
        return torch.equal(*outputs)

    def parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Names within a layer and parameters, of all layers one after the other."""
        for layer in self.layers:
            yield from layer.named_parameters()

    def backward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Run forward in the present mode and backward from the squared output and the auxiliary loss.

        Returns the result. Gradients stay in the parameters.
        """
        output, aux = self.forward(x)
        loss = output.float().square().mean()
        (loss if aux is None else loss + aux).backward()  # type: ignore[no-untyped-call]
        return output, aux


def layer_result(layer: nn.Module, x: Tensor, mask: Tensor | None = None) -> Result:
    """Call a layer as the contract says, and look at what it returns.

    Raises:
        ContractBroken: it returns something else than (output like x, None or a scalar, cache).
    """
    result = layer(x) if mask is None else layer(x, attention_mask=mask)
    if not (isinstance(result, tuple) and len(result) == 3):
        raise ContractBroken(f"forward: expected (output, aux or None, cache); found {_kind(result)}")
    output, aux, _ = result
    if not isinstance(output, Tensor) or output.shape != x.shape:
        raise ContractBroken(f"forward: expected an output of shape {list(x.shape)}; found {_kind(output)}")
    if aux is not None and (not isinstance(aux, Tensor) or aux.ndim != 0):
        raise ContractBroken(f"forward: expected None or a scalar tensor in slot two; found {_kind(aux)}")
    return output, aux


def _kind(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {list(value.shape)}"
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}"
    return type(value).__name__


def of_layer(condition: str, layer: nn.Module, draw: Callable[[int, int], Tensor]) -> Subject:
    """A single layer as a subject."""
    return Subject(condition, layer, (layer,), lambda x, mask=None: layer_result(layer, x, mask), draw)


def randomise(layer: nn.Module, generator: torch.Generator, strength: float) -> None:
    """Add noise to every parameter in place, as large as the parameter itself, so that shut gates open.

    `strength` scales the noise.
    """
    with torch.no_grad():
        for parameter in layer.parameters():
            fan_in = parameter.numel() // max(1, parameter.shape[0]) if parameter.ndim > 1 else 0
            floor = fan_in**-0.5 if fan_in else FLOOR
            spread = max(float(parameter.float().square().mean().sqrt()), floor)
            noise = torch.randn(parameter.shape, generator=generator).to(parameter)
            parameter.add_(noise, alpha=strength * spread)
