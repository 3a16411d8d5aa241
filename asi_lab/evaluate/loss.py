"""Held-out loss, computed in the scoring process."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from asi_lab.evaluate.client import HiddenStates
from asi_lab.evaluate.fault import CandidateFault
from asi_lab.evaluate.output import target_log_probs
from asi_lab.records import CandidateState


def held_out_loss(states: HiddenStates, windows: NDArray[np.int64], batch: int) -> float:
    """Mean loss in nats per token.

    Args:
        states: the model.
        windows: [N, L + 1]; tokens 1 to L of each window are predicted from those before.
        batch: windows sent at once.

    Raises:
        CandidateFault: the model diverged or looks ahead.
        ValueError: there is no window.
    """
    if not len(windows):
        raise ValueError("the held-out loss needs at least one window of tokens")
    total = 0.0
    for at in range(0, len(windows), batch):
        ids, targets = windows[at : at + batch, :-1], windows[at : at + batch, 1:]
        lengths = np.full(len(ids), ids.shape[1])
        hidden = states.hidden(ids, lengths, np.zeros_like(lengths))
        flat = torch.from_numpy(targets.reshape(-1)).to(hidden.device)
        log_probs, _ = target_log_probs(hidden, states.head, flat)
        total -= log_probs.sum(dtype=torch.float64).item()
    loss = total / windows[:, 1:].size
    if not math.isfinite(loss):
        raise CandidateFault(CandidateState.DIVERGED, f"the held-out loss is {loss}")
    return loss
