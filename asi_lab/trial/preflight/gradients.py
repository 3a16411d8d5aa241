"""Gradients are finite, and every parameter gets one under some condition."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from asi_lab.records import Check
from asi_lab.trial.preflight.subject import Subject

LEAST = 100
"""Tokens that are looked at however short the lab's own sequences are."""

DEAD = 1e-8
"""A gradient below this share of the largest one is rounding, not a gradient."""


def gradients(subjects: Iterable[Subject], length: int) -> Check:
    """Name the parameters whose gradient is not finite, and those that never get one, on sequences of
    `length` tokens: a branch may be felt from some token on.

    A gate that starts shut has gradients of zero behind it at initialisation. So a parameter is dead only
    if its gradient is zero under all conditions.
    """
    alive: set[str] = set()
    seen: dict[str, None] = {}
    conditions = []
    for subject in subjects:
        conditions.append(subject.condition)
        subject.module.train()
        subject.module.zero_grad(set_to_none=True)
        output, aux = subject.forward(subject.draw(2, length))
        direction = subject.draw(2, length).to(output.dtype)
        loss = (output * direction).sum()
        (loss if aux is None else loss + aux).backward()  # type: ignore[no-untyped-call]
        found: dict[str, float] = {}
        for name, parameter in subject.parameters():
            gradient = parameter.grad
            size = 0.0 if gradient is None else float(gradient.abs().max())
            found[name] = max(size, found.get(name, 0.0))
            seen[name] = None
            if gradient is not None and not bool(torch.isfinite(gradient).all()):
                detail = f"{subject.condition}: the gradient of {name} is not finite"
                return Check("gradients", False, 1, 0, detail)
        subject.module.zero_grad(set_to_none=True)
        largest = max(found.values(), default=0.0)
        alive |= {name for name, size in found.items() if size > DEAD * largest}
    dead = [name for name in seen if name not in alive]
    if dead:
        detail = f"no gradient ever reaches {', '.join(dead[:8])} ({', '.join(conditions)})"
        return Check("gradients", False, len(dead), 0, detail)
    detail = f"{len(seen)} parameters, each with a gradient ({', '.join(conditions)}; {length} tokens)"
    return Check("gradients", True, 0, 0, detail)
