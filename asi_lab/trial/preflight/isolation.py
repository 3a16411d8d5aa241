"""Nothing comes in from where it must not: from other rows of the batch, from earlier calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from asi_lab.records import Check
from asi_lab.trial.preflight.compare import Deviation, Worst, deviation, largest, settle
from asi_lab.trial.preflight.subject import MODES, TOLERANCE, Subject
from asi_lab.trial.preflight.trace import Line, first_change

BATCH, LENGTHS = 5, (7, 65)
"""An unusual batch size, so that the batch axis can be recognised by its length in a trace."""

ROWS = 12
"""Of a larger batch, looked at beside the largest of the lab: half of its rows are changed."""

LOUD = 30.0
"""What should have no influence is made this much larger than the rest."""


def batch(subjects: Iterable[Subject], path: str, most_rows: int = ROWS) -> Check:
    """A row gives the same alone as among others, whatever they hold, and has no gradient from them. The lab
    trains and evaluates batches of up to `most_rows`."""
    worst = Worst()
    for subject in subjects:
        for mode in MODES:
            subject.module.train(mode == "train")
            for length in LENGTHS:
                _batch(subject, mode, length, path, worst)
            for rows in sorted({ROWS, most_rows}):
                if not worst.is_bad:  # in small batches the line to blame is told more surely
                    _change_others(subject, mode, rows, 2, min(LENGTHS), path, worst)
    looked = f"{BATCH} rows and one, also {' and '.join(map(str, sorted({ROWS, most_rows})))}"
    return worst.check("batch", f"{looked}, lengths {LENGTHS}, {' and '.join(MODES)} mode")


def _change_others(
    subject: Subject, mode: str, rows: int, every: int, length: int, path: str, worst: Worst
) -> tuple[Tensor, Callable[[], Line | None]]:
    """See whether the first row, and one in `every` after it, moves with the others, which become loud.
    Returns the rows, and what finds the line to blame."""
    x, changed = subject.draw(rows, length), LOUD * subject.draw(rows, length)
    changed[::every] = x[::every]
    localise = _localiser(subject, mode, x, changed, every, path)

    def others(dtype: torch.dtype) -> Deviation:
        return deviation(subject(changed.to(dtype))[::every], subject(x.to(dtype))[::every])

    with torch.no_grad():
        found = settle(subject, others)
    where = f"{subject.condition}, {mode} mode, {rows} rows of length {length}"
    worst.see(subject, found, f"{where}: changing the other rows moves a row by {found.value:.2g}", localise)
    return x, localise


def _batch(subject: Subject, mode: str, length: int, path: str, worst: Worst) -> None:
    where = f"{subject.condition}, {mode} mode, length {length}"
    x, localise = _change_others(subject, mode, BATCH, BATCH, length, path, worst)

    def alone(dtype: torch.dtype) -> Deviation:
        return deviation(torch.cat([subject(row[None]) for row in x.to(dtype)]), subject(x.to(dtype)))

    with torch.no_grad():
        if mode == "eval" or torch.equal(subject(x), subject(x, seed=1)):  # dropout would tell them apart
            found = settle(subject, alone)
            words = f"{where}: row {found.row} alone differs from the same row among {BATCH}"
            worst.see(subject, found, f"{words} by {found.value:.2g} of its RMS", localise)
    asked = x.clone().requires_grad_()
    first = subject(asked)[0]
    direction = subject.draw(1, length)[0].to(first.dtype)
    (gradient,) = torch.autograd.grad(first, asked, direction, allow_unused=True, materialize_grads=True)
    size = gradient[:1].square().mean().sqrt().expand(BATCH)
    found = largest(gradient, torch.arange(BATCH)[:, None].expand(-1, length) > 0, size)
    words = f"{where}: the first row has a gradient of {found.value:.2g} of the RMS"
    worst.see(subject, found, f"{words} with respect to row {found.row}", localise)


def _localiser(
    subject: Subject, mode: str, x: Tensor, changed: Tensor, every: int, path: str
) -> Callable[[], Line | None]:
    def kept(output: Tensor) -> list[Tensor]:
        return [output[::every]] if output.ndim and output.shape[0] == len(x) else []

    def localise() -> Line | None:
        subject.module.train(mode == "train")
        return first_change(path, lambda: subject(x), lambda: subject(changed), kept)

    return localise


def state(subject: Subject, twin: Subject) -> Check:
    """Equal calls give equal results whatever was called in between, and calls change no tensor.

    `twin` has the same weights and has never been called.
    """
    worst = Worst()
    for mode in MODES:
        subject.module.train(mode == "train")
        twin.module.train(mode == "train")
        x, others = subject.draw(2, 65), [subject.draw(3, 33), subject.draw(2, 65), subject.draw(1, 100)]
        before = _tensors(subject.module)
        with torch.no_grad():
            first = subject(x)
            for other in others:
                subject(other)
            found = deviation(subject(x), first)
            words = f"{mode} mode: a call between two equal calls moves the second by {found.value:.2g}"
            worst.see(subject, found, words)
            found = deviation(twin(x), first)
            words = f"{mode} mode: the first call of a new copy differs from a later one by {found.value:.2g}"
            worst.see(subject, found, words)
        changed = [
            name
            for name, tensor in _tensors(subject.module).items()
            if name in before and not torch.equal(before[name], tensor)
        ]
        if changed:
            names = ", ".join(sorted(changed)[:5])
            detail = f"{mode} mode: calls change {names}, which holds state between calls"
            return Check("state", False, len(changed), 0, detail)
    return worst.check("state", f"calls of other sizes in between, {' and '.join(MODES)} mode")


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """Copies of all parameters and buffers by name."""
    held: dict[str, Any] = dict(module.named_parameters()) | dict(module.named_buffers())
    return {name: tensor.detach().clone() for name, tensor in held.items()}


def repeatability(subject: Subject) -> Check:
    """Eval mode gives the same for the same input, whatever the state of the random generators."""
    subject.module.eval()
    x = subject.draw(2, 65)
    with torch.no_grad():
        first, again, other = subject(x), subject(x), subject(x, seed=1)
    if deviation(again, first).value > TOLERANCE:  # not chance, but what a call leaves behind
        return Check("repeatability", True, detail="calls from equal random states differ: see state")
    found = deviation(other, first)
    passed = found.value <= TOLERANCE
    detail = "" if passed else "eval mode draws random numbers: two equal calls give different outputs"
    return Check("repeatability", passed, found.value, TOLERANCE, detail)
