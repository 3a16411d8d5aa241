"""Learning-rate schedules as a factor of the peak (paper, A.2)."""

from __future__ import annotations

import math

from asi_lab.settings import Train


def learning_rate_factor(step: int, train: Train) -> float:
    """Factor in (0, 1] for `step` (0-based) of `train.steps`.

    Both schedules warm up linearly. `wsd` stays at the peak and decays linearly to the minimum over
    the last `decay_fraction` of the steps; `cosine` follows half a cosine from the peak to the minimum.
    """
    if step < train.warmup_steps:
        return (step + 1) / train.warmup_steps
    low = train.minimum_lr_fraction
    if train.schedule == "cosine":
        done = (step - train.warmup_steps) / max(1, train.steps - 1 - train.warmup_steps)
        return low + (1 - low) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    decay_steps = max(1, round(train.decay_fraction * train.steps))
    left = train.steps - step
    if left > decay_steps:
        return 1.0
    return low + (1 - low) * (left - 1) / decay_steps
