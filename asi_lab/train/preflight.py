"""Checks of a candidate's layer before it is trained; measured, not asked. Runs in the trial.

Each check returns its number beside the verdict. The first failure ends the candidate in the state
that the check names.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from asi_lab.protocol import TrialJob
from asi_lab.records import CandidateState, Check
from asi_lab.settings import Model
from asi_lab.train.model import LanguageModel, build_layer

LENGTHS = (1, 7, 64, 100)
BATCHES = (1, 3)
TOLERANCE = 1e-4
"""Largest deviation, relative to the RMS of the output, that counts as rounding (float32)."""

Verdict = tuple[Check, CandidateState]


def preflight(layer: type[nn.Module], job: TrialJob, vocab_size: int) -> Iterator[Verdict]:
    """Yield each verdict with the state in which a failing candidate ends.

    Exceptions of the candidate's code pass through: the caller turns them into `broken`.
    """
    generator = torch.Generator().manual_seed(job.data_seed)
    yield _parameters(layer, job, vocab_size)
    module = build_layer(layer, job.model)
    yield _shapes(module, job.model, generator)
    yield _gradients(module, job.model, generator)
    module.eval()
    yield _causality(module, job.model, generator)
    yield _batch_independence(module, job.model, generator)
    yield _repeatability(module, job.model, generator)
    yield _state_dict(module, layer, job.model, generator)


def _parameters(layer: type[nn.Module], job: TrialJob, vocab_size: int) -> Verdict:
    everything, _ = LanguageModel(layer, job.model, vocab_size).parameter_counts()
    limit = job.limits.parameter_ratio * job.baseline_params if job.baseline_params else math.inf
    detail = f"{everything:,} parameters" + (f", at most {limit:,.0f}" if job.baseline_params else "")
    passed = everything <= limit
    tolerance = limit if math.isfinite(limit) else None
    return Check("parameters", passed, everything, tolerance, detail), CandidateState.REJECTED


def _noise(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator)


def _output(module: nn.Module, x: Tensor) -> Tensor:
    """The layer's output [B, L, D], after a look at the shape of what it returns."""
    result = module(x)
    if not (isinstance(result, tuple) and len(result) == 3):
        raise ValueError(f"forward: expected (output, aux_or_None, past_key_values); found {type(result)}")
    output, aux, _ = result
    if not isinstance(output, Tensor) or output.shape != x.shape:
        raise ValueError(f"forward: expected an output of shape {tuple(x.shape)}; found {_shape(output)}")
    if aux is not None and (not isinstance(aux, Tensor) or aux.ndim != 0):
        raise ValueError(f"forward: expected None or a scalar tensor in slot two; found {_shape(aux)}")
    return output


def _shape(value: object) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__


def _shapes(module: nn.Module, model: Model, generator: torch.Generator) -> Verdict:
    with torch.no_grad():
        for length in LENGTHS:
            for batch in BATCHES:
                output = _output(module, _noise(generator, batch, length, model.width))
                if not bool(torch.isfinite(output).all()):
                    detail = f"non-finite output at batch {batch}, length {length}"
                    return Check("shapes", False, detail=detail), CandidateState.BROKEN
    return Check("shapes", True, detail=f"lengths {LENGTHS}, batches {BATCHES}"), CandidateState.BROKEN


def _gradients(module: nn.Module, model: Model, generator: torch.Generator) -> Verdict:
    output = _output(module, _noise(generator, 2, 100, model.width))
    torch.autograd.backward((output * _noise(generator, *output.shape)).sum())
    bad = [
        name
        for name, p in module.named_parameters()
        if p.grad is not None and not bool(torch.isfinite(p.grad).all())
    ]
    module.zero_grad(set_to_none=True)
    detail = f"non-finite gradient in {', '.join(bad)}" if bad else ""
    return Check("gradients", not bad, len(bad), 0, detail), CandidateState.BROKEN


def _deviation(a: Tensor, b: Tensor) -> float:
    """Largest difference relative to the RMS of `b`."""
    return float((a - b).abs().max() / b.square().mean().sqrt().clamp_min(1e-12)) if a.numel() else 0.0


def _causality(module: nn.Module, model: Model, generator: torch.Generator) -> Verdict:
    worst, where = 0.0, 0
    x = _noise(generator, 2, 100, model.width)
    with torch.no_grad():
        full = _output(module, x)
        for t in (1, 15, 16, 17, 31, 33, 63, 64, 65, 99):
            changed = x.clone()
            changed[:, t:] = _noise(generator, 2, 100 - t, model.width)
            deviation = _deviation(_output(module, changed)[:, :t], full[:, :t])
            if not deviation <= worst:
                worst, where = deviation, t
    detail = f"changing the input from position {where} on moves outputs before it" if worst else ""
    return Check("causality", worst <= TOLERANCE, worst, TOLERANCE, detail), CandidateState.LEAKING


def _batch_independence(module: nn.Module, model: Model, generator: torch.Generator) -> Verdict:
    x = _noise(generator, 3, 65, model.width)
    with torch.no_grad():
        together = _output(module, x)
        alone = torch.cat([_output(module, row[None]) for row in x])
    worst = _deviation(together, alone)
    detail = "a row's output depends on the other rows" if worst > TOLERANCE else ""
    return Check("batch_independence", worst <= TOLERANCE, worst, TOLERANCE, detail), CandidateState.LEAKING


def _repeatability(module: nn.Module, model: Model, generator: torch.Generator) -> Verdict:
    x = _noise(generator, 2, 65, model.width)
    with torch.no_grad():
        first = _output(module, x)
        _output(module, _noise(generator, 2, 65, model.width))
        worst = _deviation(_output(module, x), first)
    detail = "the same input gives another output after a second call" if worst > TOLERANCE else ""
    return Check("repeatability", worst <= TOLERANCE, worst, TOLERANCE, detail), CandidateState.BROKEN


def _state_dict(
    module: nn.Module, layer: type[nn.Module], model: Model, generator: torch.Generator
) -> Verdict:
    x = _noise(generator, 2, 33, model.width)
    twin = build_layer(layer, model).eval()
    twin.load_state_dict(module.state_dict())
    with torch.no_grad():
        worst = _deviation(_output(twin, x), _output(module, x))
    detail = "weights saved and loaded give another output" if worst > TOLERANCE else ""
    return Check("state_dict", worst <= TOLERANCE, worst, TOLERANCE, detail), CandidateState.BROKEN
