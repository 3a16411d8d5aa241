"""The output head, which only the scoring process applies."""

from __future__ import annotations

import torch
from torch import Tensor

LOGITS_AT_ONCE = 1 << 25


def target_log_probs(hidden: Tensor, head: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Log probability of each target, and whether it is the most probable token.

    Args:
        hidden: states, float32 [N, D].
        head: output matrix, float32 [V, D].
        targets: token ids, int64 [N].

    Returns:
        Natural log probabilities, float32 [N], and booleans [N].
    """
    log_probs = hidden.new_empty(len(targets))
    greedy = torch.empty(len(targets), dtype=torch.bool, device=hidden.device)
    step = max(1, LOGITS_AT_ONCE // len(head))
    for at in range(0, len(targets), step):
        rows = slice(at, at + step)
        logits = hidden[rows] @ head.T
        chosen = logits.gather(1, targets[rows, None]).squeeze(1)
        log_probs[rows] = chosen - logits.logsumexp(1)
        greedy[rows] = logits.argmax(1) == targets[rows]
    return log_probs, greedy
