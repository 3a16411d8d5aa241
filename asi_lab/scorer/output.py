"""Final norm and output head, which only the scoring process applies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from asi_lab.common.weights import BadWeights, Weights
from asi_lab.kernels import rms_norm
from asi_lab.records import CandidateState
from asi_lab.scorer.fault import CandidateFault
from asi_lab.settings import ModelSettings

LOGITS_AT_ONCE = 1 << 25


class Output:
    """What stands behind the last block of a language model: final norm and output head."""

    def __init__(
        self,
        head: NDArray[Any],
        norm: Sequence[NDArray[Any]],
        model: ModelSettings,
        device: torch.device | str = "cpu",
    ) -> None:
        """`head` [V, D]; `norm` are weight [D] and, of a layer norm, bias [D]; all float32.

        Raises:
            CandidateFault: a value is not finite.
        """
        if not all(np.isfinite(array).all() for array in (head, *norm)):
            words = "the output head or the final norm has values that are not finite"
            raise CandidateFault(CandidateState.DIVERGED, words)
        self.device, self._eps = torch.device(device), model.norm_eps
        self.head = torch.from_numpy(head).to(self.device)
        self._norm = [torch.from_numpy(array).to(self.device) for array in norm]

    @classmethod
    def of_checkpoint(
        cls, path: Path, model: ModelSettings, vocab_size: int, device: torch.device | str = "cpu"
    ) -> Output:
        """Read both from a checkpoint that a trial has written.

        Raises:
            CandidateFault: they are not there, have another shape, or are not finite.
        """
        try:
            head, norm = Weights(path, model).around_layers(vocab_size)
        except BadWeights as error:
            raise CandidateFault(CandidateState.FORGED, f"the checkpoint: {error}") from error
        return cls(head, norm, model, device)

    def logits(self, residual: Tensor) -> Tensor:
        """The residual stream [N, D] behind the last block -> logits [N, V]."""
        weight, *bias = self._norm
        normed = (
            F.layer_norm(residual, weight.shape, weight, bias[0], self._eps)
            if bias
            else rms_norm(residual, weight, self._eps)
        )
        return normed @ self.head.T

    def log_probs(self, residual: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Log probability of each target, and whether it is the most probable token.

        Args:
            residual: the stream behind the last block, float32 [N, D].
            targets: token ids, int64 [N].

        Returns:
            Natural log probabilities, float32 [N], and booleans [N].
        """
        found = residual.new_empty(len(targets))
        greedy = torch.empty(len(targets), dtype=torch.bool, device=residual.device)
        step = max(1, LOGITS_AT_ONCE // len(self.head))
        for at in range(0, len(targets), step):
            rows = slice(at, at + step)
            logits = self.logits(residual[rows])
            chosen = logits.gather(1, targets[rows, None]).squeeze(1)
            found[rows] = chosen - logits.logsumexp(1)
            greedy[rows] = logits.argmax(1) == targets[rows]
        return found, greedy
