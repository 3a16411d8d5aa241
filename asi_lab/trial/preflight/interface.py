"""The contract as it runs: construction, size, shapes, numbers that are finite, the right precision."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial

import torch
from torch import Tensor

from asi_lab.records import Check
from asi_lab.trial.preflight.compare import deviation
from asi_lab.trial.preflight.subject import TOLERANCE, Subject
from asi_lab.trial.preflight.trace import Line, Tracer, first_not_finite

SIZES = ((32, 2), (96, 3), (128, 8), (256, 4))
"""Widths and head counts beside the lab's own."""

LENGTHS, BATCHES = (1, 7, 64, 100, 257), (1, 3, 4)
LOW_PRECISION = frozenset({torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.float8_e5m2})


def construction(build: Callable[[int, int], Subject], lab: tuple[int, int], runs: bool) -> Check:
    """The layer can be built at several widths and head counts, and called there if it `runs` at all."""
    sizes = (lab, *(size for size in SIZES if size != lab))
    for width, heads in sizes:
        try:
            subject = build(width, heads)
            if runs:
                with torch.no_grad():
                    subject(subject.draw(2, 33))
        except Exception as error:
            error.add_note(f"while building the layer at width {width} with {heads} heads")
            raise
    return Check("construction", True, detail=f"widths and heads {', '.join(f'{w}/{h}' for w, h in sizes)}")


def parameters(mine: int, baseline: int, ratio: float) -> Check:
    """The size of the whole language model against that of the seed architecture's."""
    limit = ratio * baseline
    detail = f"{mine:,} parameters, {mine / baseline:.2f} times DeltaNet's {baseline:,}; at most {ratio:g}"
    return Check("parameters", mine <= limit, mine, limit, detail)


def shapes(subject: Subject, path: str) -> Check:
    """Forward and backward at odd lengths and several batch sizes: shapes, finite numbers, slot two."""
    subject.module.train()
    for length in LENGTHS:
        for batch in BATCHES:
            x = subject.draw(batch, length).requires_grad_()
            where = f"batch {batch}, length {length}"
            try:
                fault = _not_finite(*subject.backward(x))
            except Exception as error:
                error.add_note(f"while running forward and backward at {where}")
                raise
            subject.module.zero_grad(set_to_none=True)
            if fault:
                line = first_not_finite(path, partial(subject.forward, x.detach()))
                return _failed("shapes", f"{where}: {fault}", line)
    return Check("shapes", True, detail=f"forward and backward, lengths {LENGTHS}, batches {BATCHES}")


def _not_finite(output: Tensor, aux: Tensor | None) -> str:
    if not bool(torch.isfinite(output).all()):
        row, position, channel = torch.nonzero(~torch.isfinite(output))[0].tolist()
        return f"the output is not finite at row {row}, position {position}, channel {channel}"
    if aux is not None and not bool(torch.isfinite(aux)):
        return f"the auxiliary loss in slot two is {aux.item()}"
    return ""


def _failed(name: str, detail: str, line: Line | None) -> Check:
    words = f"{detail}{f'; first seen in {line}' if line else ''}"
    return Check(name, False, detail=words, line=line.number if line else None)


def dtype(subject: Subject, mixed: Callable[[], AbstractContextManager[object]] | None, path: str) -> Check:
    """Outputs have the type of the input, and nothing is computed in less than float32 unless the lab asks.

    `mixed` opens the preset's mixed precision, None where the preset trains in float32 throughout.
    """
    subject.module.train()
    x = subject.draw(2, 33)
    low: list[Line] = []

    def see(line: Line, outputs: Sequence[Tensor]) -> None:
        if line.number and not low and any(output.dtype in LOW_PRECISION for output in outputs):
            low.append(line)

    with torch.no_grad(), Tracer(path, see):
        output, _ = subject.forward(x)
    if output.dtype != x.dtype:
        return Check("dtype", False, detail=f"the output is {output.dtype} for an input of {x.dtype}")
    if low:
        return _failed("dtype", "a float32 input is computed in low precision", low[0])
    if mixed is None:
        return Check("dtype", True, detail="float32")
    for length in LENGTHS:
        x = subject.draw(3, length)
        with mixed():
            output, aux = subject.backward(x)
        subject.module.zero_grad(set_to_none=True)
        if output.dtype not in (torch.float32, torch.bfloat16):
            return Check("dtype", False, detail=f"under bf16 autocast the output is {output.dtype}")
        if fault := _not_finite(output, aux):
            return Check("dtype", False, detail=f"under bf16 autocast, length {length}: {fault}")
    return Check("dtype", True, detail=f"float32, and bf16 autocast at lengths {LENGTHS}")


def state_dict(subject: Subject, twin: Subject) -> Check:
    """Weights that are saved, loaded and put into a new layer, the `twin`, give the same output."""
    saved = io.BytesIO()
    torch.save(subject.module.state_dict(), saved)
    saved.seek(0)
    twin.module.load_state_dict(torch.load(saved, weights_only=True))
    subject.module.eval()
    twin.module.eval()
    x = subject.draw(2, 33)
    with torch.no_grad():
        found = deviation(twin(x), subject(x))
    passed = found.value <= TOLERANCE
    detail = "" if passed else "weights saved and loaded give another output: some are not registered"
    return Check("state_dict", passed, found.value, TOLERANCE, detail)
