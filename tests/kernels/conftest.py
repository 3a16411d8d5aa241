"""Inputs and comparisons shared by the kernel tests."""

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor
from torch.nn import functional

# Triton reads this when a kernel is defined. Its interpreter runs the kernels on every machine alike;
# test_gpu.py tests them on a GPU, in a process of its own.
os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(autouse=True)
def _one_thread_and_seed() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def unit_keys(shape: tuple[int, ...], correlation: float, dtype: torch.dtype = torch.float64) -> Tensor:
    """Keys `[B, T, H, K]` of length one whose inner products are about `correlation` (1.0: identical)."""
    B, _, H, K = shape
    common = torch.randn(B, 1, H, K, dtype=dtype)
    mixed = correlation**0.5 * functional.normalize(common, dim=-1)
    mixed = mixed + (1 - correlation) ** 0.5 * functional.normalize(torch.randn(shape, dtype=dtype), dim=-1)
    return functional.normalize(mixed, dim=-1)


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Largest absolute difference over the root mean square of what was expected."""
    rms = expected.double().square().mean().sqrt().item()
    difference = (actual.double() - expected.double()).abs().max().item()
    return difference / rms if rms > 0 else difference


def outputs_and_gradients(
    function: Callable[..., tuple[Tensor, ...]], inputs: dict[str, Tensor], dtype: torch.dtype | None = None
) -> dict[str, Tensor]:
    """Outputs of `function(**inputs)` and the gradient of a fixed random projection of all of them."""
    leaves = {name: x.detach().to(dtype or x.dtype).requires_grad_() for name, x in inputs.items()}
    outputs = function(**leaves)
    generator = torch.Generator().manual_seed(1)
    loss = sum(
        (y.double() * torch.randn(y.shape, generator=generator, dtype=torch.float64)).sum() for y in outputs
    )
    gradients = torch.autograd.grad(loss, list(leaves.values()))
    named = {f"output {i}": y.detach() for i, y in enumerate(outputs)}
    return named | {f"d_{name}": d for name, d in zip(leaves, gradients, strict=True)}


@pytest.fixture
def assert_same() -> Callable[..., None]:
    """Both functions give equal outputs and gradients, the first in `dtype`, the second in float64."""

    def check(
        fast: Callable[..., tuple[Tensor, ...]],
        truth: Callable[..., tuple[Tensor, ...]],
        inputs: dict[str, Tensor],
        tolerance: float,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        actual = outputs_and_gradients(fast, inputs, dtype)
        expected = outputs_and_gradients(truth, inputs)
        errors = {name: relative_error(actual[name], expected[name]) for name in expected}
        wrong = {name: error for name, error in errors.items() if not error <= tolerance}
        assert not wrong, f"beyond {tolerance}: {wrong}"

    return check


@pytest.fixture
def make_keys() -> Callable[..., Tensor]:
    return unit_keys


@contextmanager
def count_launches() -> Iterator[list[str]]:
    """The names of the Triton kernels launched meanwhile, in order."""
    from triton.runtime.interpreter import GridExecutor

    names: list[str] = []
    original = GridExecutor.__call__

    def launch(self, *args, **kwargs):
        names.append(self.fn.__name__)
        return original(self, *args, **kwargs)

    GridExecutor.__call__ = launch
    try:
        yield names
    finally:
        GridExecutor.__call__ = original


@pytest.fixture
def launches() -> Callable[..., object]:
    return count_launches


class InterpretedInt(int):
    """A Python int where compiled kernels have a tensor: the counter of a loop."""

    def to(self, dtype):
        return self


@pytest.fixture
def interpreter(monkeypatch) -> None:
    """Runs fla's own kernels, slowly: without timing their configurations."""
    autotuner = importlib.import_module("triton.runtime.autotuner").Autotuner

    def run_first(self, *args, **kwargs):
        first = self.configs[0]
        launch = {"num_warps": first.num_warps, "num_stages": first.num_stages}
        return self.fn.run(*args, **kwargs | first.kwargs | launch)

    def counters(*bounds):
        return map(
            InterpretedInt, range(*(int(x.handle.data.item()) if hasattr(x, "handle") else x for x in bounds))
        )

    monkeypatch.setattr(autotuner, "run", run_first)
    for module in (
        "delta_rule",
        "gated_delta_rule",
        "kda",
        "simple_gla",
        "gla",
        "retention",
        "generalized_delta_rule",
    ):
        importlib.import_module(f"fla.ops.{module}")
    for name, module in list(sys.modules.items()):
        if name.startswith("fla.ops"):
            monkeypatch.setattr(module, "range", counters, raising=False)
            if hasattr(module, "IS_GATHER_SUPPORTED"):  # by fla's name for it the interpreter knows it not
                monkeypatch.setattr(module, "IS_GATHER_SUPPORTED", False)
