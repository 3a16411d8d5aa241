"""One optimizer step: micro-batches, clipping, AdamW, in any number format."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from asi_lab.settings import Train
from asi_lab.trial.model import LanguageModel
from asi_lab.trial.precision import MasterWeights, autocast
from asi_lab.trial.train.ranks import Ranks


def build_optimizer(parameters: Sequence[nn.Parameter], train: Train) -> torch.optim.Optimizer:
    """AdamW in one fused kernel; only matrices decay."""
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": train.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        groups,
        lr=train.learning_rate,
        betas=(train.adam_beta1, train.adam_beta2),
        eps=train.adam_eps,
        fused=True,
    )


class Optimisation:
    """A model in training, with what its optimizer remembers. `pulse` is called before each micro-batch."""

    def __init__(
        self,
        model: LanguageModel,
        train: Train,
        ranks: Ranks,
        pulse: Callable[[], None] = lambda: None,
    ) -> None:
        self.model, self.train, self.ranks, self.pulse = model, train, ranks, pulse
        weights = [p for p in model.parameters() if p.requires_grad]
        self._masters = MasterWeights(model) if train.precision == "bf16_weights" else None
        self.parameters = weights if self._masters is None else [self._masters.twin(p) for p in weights]
        self.optimizer = build_optimizer(self.parameters, train)

    def step(self, tokens: Tensor, rate: float) -> tuple[float, float]:
        """Train on a batch [B, L + 1] at a learning rate; its mean loss in nats and the gradient's norm."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss = self.accumulate(self.ranks.rows(tokens))
        self.ranks.add_up(loss, self.parameters)
        norm = nn.utils.clip_grad_norm_(self.parameters, self.train.gradient_clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self._masters is not None:
            self._masters.write()
        loss_value, norm_value = torch.stack((loss, norm.float())).tolist()  # the step's one wait for a GPU
        return loss_value, norm_value

    def accumulate(self, tokens: Tensor) -> Tensor:
        """Backward over micro-batches of tokens [R, L + 1]: their share of the batch's mean loss in nats,
        auxiliary losses left out of what is returned."""
        total = torch.zeros((), device=tokens.device)
        for part in torch.split(tokens, self.train.micro_batch):
            self.pulse()
            share = len(part) / self.train.batch
            with autocast(part.device, self.train.precision):
                loss, aux = self.model(part)
            ((loss + aux) * share).backward()
            total += loss.detach() * share
        return total

    def full_precision(self) -> AbstractContextManager[None]:
        """The model holds float32 weights for a while, whatever it trains in."""
        return nullcontext() if self._masters is None else self._masters.full()

    def finish(self) -> None:
        """Training is over: the model keeps its float32 weights."""
        if self._masters is not None:
            self._masters.unround()

    def state(self) -> dict[str, Any]:
        """All that training goes on from; nothing but tensors, numbers, strings and containers of them."""
        with self.full_precision():
            # The dictionary refers to the weights of this moment: masters, not their roundings.
            return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        with self.full_precision():
            self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
