"""Time and memory of one training step of a layer against the seed architecture's, in the same process."""

from __future__ import annotations

import time

import torch

from asi_lab.preflight.counting import Counter
from asi_lab.preflight.subject import Subject
from asi_lab.records import Check

ROUNDS = 3


def cost(
    mine: Subject, baseline: Subject, batch: int, length: int, limits: tuple[float, float], path: str
) -> Check:
    """Forward and backward at the training shape [batch, length].

    `limits` are the largest ratios of time and of memory. Time is the shortest of a few rounds taken in
    turn; memory is the most bytes of tensors alive at once.
    """
    times: dict[str, list[float]] = {"mine": [], "baseline": []}
    for _ in range(ROUNDS):
        times["mine"].append(_seconds(mine, batch, length))
        times["baseline"].append(_seconds(baseline, batch, length))
    slower = min(times["mine"]) / min(times["baseline"])
    larger = _peak_bytes(mine, batch, length, path) / _peak_bytes(baseline, batch, length, path)
    detail = f"a step takes {slower:.1f} times as long and {larger:.1f} times the memory of DeltaNet's"
    most_time, most_memory = limits
    if larger > most_memory:
        return Check("cost", False, larger, most_memory, f"{detail}; memory at most {most_memory:g} times")
    passed = slower <= most_time
    limit = "" if passed else f"; time at most {most_time:g} times"
    return Check("cost", passed, slower, most_time, detail + limit)


def _seconds(subject: Subject, batch: int, length: int) -> float:
    x = subject.draw(batch, length).requires_grad_()
    subject.module.train()
    _synchronise(x.device)
    started = time.perf_counter()
    subject.backward(x)
    _synchronise(x.device)
    seconds = time.perf_counter() - started
    subject.module.zero_grad(set_to_none=True)
    return seconds


def _peak_bytes(subject: Subject, batch: int, length: int, path: str) -> int:
    """On a GPU by its allocator, which sees custom kernels too; elsewhere by counting."""
    x = subject.draw(batch, length).requires_grad_()
    subject.module.train()
    if x.device.type == "cuda":
        before = torch.cuda.memory_allocated(x.device)
        torch.cuda.reset_peak_memory_stats(x.device)
        subject.backward(x)
        peak = torch.cuda.max_memory_allocated(x.device) - before
    else:
        with Counter(path, peak=True) as counter:
            subject.backward(x)
        peak = counter.peak_bytes
    subject.module.zero_grad(set_to_none=True)
    return max(1, peak)


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
