"""Time and memory of one training step of a layer against the seed architecture's, in the same process."""

from __future__ import annotations

import math
import time

import torch

from asi_lab.records import Check
from asi_lab.trial.preflight.counting import Counter
from asi_lab.trial.preflight.subject import Subject

ROUNDS, MOST_ROUNDS = 3, 12
NEAR = 2.0
"""A ratio of time within this factor of the limit is measured again and again: the machine may be busy."""


def cost(
    mine: Subject, baseline: Subject, batch: int, length: int, limits: tuple[float, float], path: str
) -> Check:
    """Forward and backward at the training shape [batch, length].

    `limits` are the largest ratios of time and of memory. Time is the shortest of a few rounds taken in
    turn, of more rounds near the limit; memory is the most bytes of tensors alive at once.
    """
    most_time, most_memory = limits
    slower = _ratio(mine, baseline, batch, length, most_time)
    larger = _peak_bytes(mine, batch, length, path) / _peak_bytes(baseline, batch, length, path)
    detail = f"a step takes {slower:.1f} times as long and {larger:.1f} times the memory of DeltaNet's"
    if larger > most_memory:
        return Check("cost", False, larger, most_memory, f"{detail}; memory at most {most_memory:g} times")
    passed = slower <= most_time
    limit = "" if passed else f"; time at most {most_time:g} times"
    return Check("cost", passed, slower, most_time, detail + limit)


def _ratio(mine: Subject, baseline: Subject, batch: int, length: int, limit: float) -> float:
    """Time of a step over the baseline's."""
    least = [math.inf, math.inf]
    for done in range(1, MOST_ROUNDS + 1):
        for place, subject in enumerate((mine, baseline)):
            least[place] = min(least[place], _seconds(subject, batch, length))
        ratio = least[0] / least[1]
        if done >= ROUNDS and not limit / NEAR < ratio < limit * NEAR:
            break
    return ratio


def _seconds(subject: Subject, batch: int, length: int) -> float:
    """Of a step: on a CPU those of the processor on this one thread, which other programs hardly move. The
    process's own would count torch's other threads, which spin while they wait for work."""
    x = subject.draw(batch, length).requires_grad_()
    subject.module.train()
    on_gpu = x.device.type == "cuda"
    clock, threads = time.perf_counter if on_gpu else time.thread_time, torch.get_num_threads()
    torch.set_num_threads(1)
    _synchronise(x.device)
    started = clock()
    try:
        subject.backward(x)
        _synchronise(x.device)
    finally:
        torch.set_num_threads(threads)
    seconds = clock() - started
    subject.module.zero_grad(set_to_none=True)
    return max(seconds, 1e-9)


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
