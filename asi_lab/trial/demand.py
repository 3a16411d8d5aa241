"""Counts what training a model asks of a device, without the device and without training it.

    python -m asi_lab.trial.demand DEVICE ARCHITECTURE JOB_JSON

The real model takes a real step, and answers a real batch, on tensors that have shapes but no values (torch's
FakeTensorMode); what would live is added up as it comes and goes. DEVICE is `auto`, `cpu` or `cuda`; for the
latter no GPU is needed: operations take the forms that they take there, and whatever Triton would launch is
left out, which allocates nothing. Blocks are counted as they are before they are compiled, which keeps less.
A `Demand` is printed as JSON. Only code of ours is ever counted: this process has no sandbox.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import psutil
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from asi_lab.common import process
from asi_lab.common.device import pick_device
from asi_lab.kernels.linear_cross_entropy.chunk import chunk_linear_cross_entropy, fit_chunk
from asi_lab.protocol import TrialJob
from asi_lab.records.demand import Demand
from asi_lab.settings import ModelSettings, Train
from asi_lab.trial import main as _everything  # noqa: F401  what a trial imports is in its memory
from asi_lab.trial.life import warm_up
from asi_lab.trial.model import LanguageModel, load_architecture
from asi_lab.trial.precision import is_mixed
from asi_lab.trial.preflight.counting import Alive, flops
from asi_lab.trial.preflight.trace import tensors
from asi_lab.trial.train.meter import matmul_rate
from asi_lab.trial.train.optimisation import Optimisation
from asi_lab.trial.train.ranks import Alone

FEW_TOKENS = 512
"""On a CPU operations go through blocks that fit its caches, one after the other. So for a batch beyond twice
as many tokens what lives is counted at so many and at twice as many, and drawn on: it grows by the token."""


class Tally(TorchDispatchMode):
    """Adds up what lives and the floating-point operations. Whoever asks a tensor for its value is told 1."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.alive, self.flops = Alive(), 0.0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operation and book it."""
        if func is torch.ops.aten._local_scalar_dense.default:
            return 1.0 if args[0].is_floating_point() else 1
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        self.flops += flops(func, args, kwargs, result)
        for tensor in tensors(result):
            self.alive.see(tensor)
        return result


class _Model(LanguageModel):
    """The language model on tensors without values: its loss goes straight to the kernel, with the chunks of
    the device that is counted for, since values of targets cannot be checked."""

    def __init__(self, layer: type[nn.Module], settings: ModelSettings, vocab_size: int, kind: str) -> None:
        super().__init__(layer, settings, vocab_size)
        self._kind = kind

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        hidden, aux = self.hidden(tokens[:, :-1])
        x, target, weight = hidden.flatten(0, 1), tokens[:, 1:].flatten(), self.head.weight
        dtype = torch.bfloat16 if torch.is_autocast_enabled("cpu") else torch.float32
        counted = torch.ones_like(target, dtype=torch.bool)
        chunk = fit_chunk(len(weight), dtype, self._kind)
        with torch.autocast("cpu", enabled=False):
            rest = (counted, counted.sum(), None, dtype, chunk, False)
            return chunk_linear_cross_entropy(x, target, weight, None, *rest), aux


def count(layer: type[nn.Module], job: TrialJob, kind: str, rate: float | None = None) -> Demand:
    """What a job would hold on a device of that kind, `cpu` or `cuda`, and compute there."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    memory = psutil.Process().memory_full_info()
    train = _settled(job.train, torch.device(kind))
    if kind == "cuda":
        _pose_as_gpu()
    with warnings.catch_warnings(), FakeTensorMode(), Tally() as tally:
        warnings.simplefilter("ignore")  # of kernels that compare addresses, which are none here
        model = _Model(layer, job.model, job.vocab_size, kind)
        model.recompute = train.recompute
        params, _ = model.parameter_counts()
        parts = min(2, train.batch // train.micro_batch)  # from the second on gradients are there before it

        def step(rows: int, length: int) -> float:
            shrunk = msgspec.structs.replace(train, batch=rows * parts, micro_batch=rows)
            optimisation.train, tally.alive.peak, tally.flops = shrunk, tally.alive.now, 0.0
            optimisation.step(torch.zeros(rows * parts, length + 1, dtype=torch.long), 1.0)
            per_token.append(tally.flops / (rows * parts * length))
            return float(tally.alive.peak - state)

        def answer(rows: int, length: int) -> float:
            tally.alive.peak = before = tally.alive.now
            with torch.no_grad():
                model.residual(torch.zeros(rows, length, dtype=torch.long)).float()
            return float(tally.alive.peak - before)

        model.eval()
        evaluation = _drawn_on(answer, job.reach.rows, job.reach.length, kind)
        model.train()
        optimisation = Optimisation(model, train, Alone())
        for parameter in optimisation.parameters:
            parameter.grad = torch.zeros_like(parameter)
        gradients = _bytes(parameter.grad for parameter in optimisation.parameters)
        optimisation.optimizer.step()
        optimisation.optimizer.zero_grad(set_to_none=True)
        weights = _bytes(model.parameters())
        twins = 0 if train.precision != "bf16_weights" else _bytes(optimisation.parameters)
        moments = _bytes(
            value for values in optimisation.optimizer.state.values() for value in values.values()
        )
        state, per_token = weights + twins + gradients + moments, list[float]()
        activations = _drawn_on(step, train.micro_batch, train.context, kind)
    return Demand(
        device=kind,
        params=params,
        weights=weights,
        twins=twins,
        gradients=gradients,
        moments=moments,
        activations=round(max(0.0, activations)),
        evaluation=round(evaluation),
        resident=memory.rss,
        private=memory.uss,
        flops=per_token[-1],
        rate=rate,
    )


def _settled(train: Train, device: torch.device) -> Train:
    """The number format that `auto` means on a device, which the tensors here are not on."""
    if train.precision == "auto":
        return msgspec.structs.replace(train, precision="bf16" if is_mixed(device, "auto") else "fp32")
    return train


def _pose_as_gpu() -> None:
    """From now on tensors without values count as a GPU's, and Triton launches nothing in this process."""
    from torch._subclasses.fake_tensor import FakeTensor
    from triton.runtime.jit import KernelInterface

    FakeTensor.is_cuda = True
    KernelInterface.__getitem__ = lambda self, grid: lambda *args, **kwargs: None


def _drawn_on(measure: Callable[[int, int], float], rows: int, length: int, kind: str) -> float:
    """What `measure` gives for so many rows of a length, on a CPU perhaps from fewer; see `FEW_TOKENS`."""
    short = min(length, FEW_TOKENS)
    few = FEW_TOKENS // short
    if kind != "cpu" or rows * length <= 2 * few * short:
        return measure(rows, length)
    one, two = measure(few, short), measure(2 * few, short)
    return two + (two - one) * (rows * length / (few * short) - 2)


def _bytes(values: Any) -> int:
    """Of all tensors among the values."""
    return sum(value.numel() * value.element_size() for value in values if isinstance(value, Tensor))


def main(arguments: list[str]) -> int:
    """Count and print; returns the exit status."""
    name, architecture, text = arguments
    job = msgspec.json.decode(text, type=TrialJob)
    process.tune_allocator()
    warm_up()
    device, rate = torch.device(name) if name != "auto" else pick_device(name), None
    torch.set_num_threads(job.train.threads or process.physical_cores())
    if device.type == "cpu" or torch.cuda.is_available():
        mixed = is_mixed(device, job.train.precision)
        rate = matmul_rate(device, torch.bfloat16 if mixed else torch.float32)
    layer = load_architecture(Path(architecture))
    print(msgspec.json.encode(count(layer, job, device.type, rate)).decode())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
