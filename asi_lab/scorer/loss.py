"""Held-out loss, computed in the scoring process."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from asi_lab.records import CandidateState
from asi_lab.scorer.client import Remote
from asi_lab.scorer.fault import CandidateFault
from asi_lab.scorer.output import Output


def target_log_probs(
    model: Remote, output: Output, windows: NDArray[np.int64], batch: int
) -> NDArray[np.float32]:
    """Log probabilities in nats [N, L] of tokens 1 to L of each window, each after those before it.

    Args:
        model: answers full rows.
        output: its final norm and head.
        windows: [N, L + 1].
        batch: windows sent at once.

    Raises:
        CandidateFault: the model diverged.
        ValueError: there is no window.
    """
    if not len(windows):
        raise ValueError("the held-out loss needs at least one window of tokens")
    found = np.empty(windows[:, 1:].shape, np.float32)
    for at in range(0, len(windows), batch):
        ids, targets = windows[at : at + batch, :-1], windows[at : at + batch, 1:]
        lengths = np.full(len(ids), ids.shape[1])
        states = model.residual(ids, lengths, np.zeros_like(lengths))
        flat = torch.from_numpy(targets.reshape(-1)).to(states.device)
        log_probs, _ = output.log_probs(states, flat)
        found[at : at + batch] = log_probs.cpu().numpy().reshape(targets.shape)
    return found


def mean_loss(log_probs: NDArray[np.float32]) -> float:
    """Mean loss in nats per token, summed in float64.

    Raises:
        CandidateFault: it is not finite.
    """
    loss = -float(log_probs.mean(dtype=np.float64))
    if not math.isfinite(loss):
        raise CandidateFault(CandidateState.DIVERGED, f"the held-out loss is {loss}")
    return loss
