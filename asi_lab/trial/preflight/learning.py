"""A short overfit: the loss of a small language model falls when only the candidate's layers are trained."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NamedTuple

import msgspec
import torch
from torch import nn

from asi_lab.records import Check
from asi_lab.settings import ModelSettings
from asi_lab.trial.model import LanguageModel
from asi_lab.trial.preflight.subject import Subject

STEPS, BATCH, LENGTH, VOCABULARY, LAYERS = 16, 4, 48, 64, 2
MODEL_TOLERANCE = 1e-3
"""As `TOLERANCE`, for a whole model: rounding adds up from layer to layer."""

LEAST_FALL = 0.05
"""Share of the first loss that must be gone in the end."""


class Overfit(NamedTuple):
    """The model after the steps, as a subject, and its losses (nats per token)."""

    subject: Subject
    losses: list[float]


def overfit(
    layer: type[nn.Module],
    model: ModelSettings,
    device: torch.device,
    generator: torch.Generator,
    mixed: Callable[[], AbstractContextManager[object]],
) -> Overfit:
    """Train the layers of a shallow model on one batch of random tokens; all else keeps its random weights.

    So the loss can fall through the candidate's layers alone.
    """
    shallow = msgspec.structs.replace(model, layers=min(LAYERS, model.layers))
    lm = LanguageModel(layer, shallow, VOCABULARY).to(device)
    tokens = torch.randint(VOCABULARY, (BATCH, LENGTH + 1), generator=generator).to(device)
    layers = lm.mixers()
    parameters = [p for mixer in layers for p in mixer.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=0.1 * model.width**-0.5, weight_decay=0.0)
    losses: list[float] = []
    lm.train()
    for step in range(STEPS + 1):
        with mixed():
            loss, aux = lm(tokens)
        losses.append(float(loss.detach()))
        if step < STEPS and math.isfinite(losses[-1]):
            (loss + aux).backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            lm.zero_grad(set_to_none=True)
    return Overfit(of_model("after overfit steps", lm, VOCABULARY, device, generator), losses)


def of_model(
    condition: str, lm: LanguageModel, vocabulary: int, device: torch.device, generator: torch.Generator
) -> Subject:
    """A whole language model behind its embedding as a subject; its inputs are those of random tokens."""

    def draw(batch: int, length: int) -> torch.Tensor:
        ids = torch.randint(vocabulary, (batch, length), generator=generator)
        embedded: torch.Tensor = lm.embed(ids.to(device))
        return embedded.detach().clone()

    return Subject(condition, lm, lm.mixers(), lm.mix, draw, MODEL_TOLERANCE)


def learning(losses: list[float]) -> Check:
    """The verdict on the losses of an overfit."""
    fall = 1 - losses[-1] / losses[0]
    detail = f"from {losses[0]:.3f} to {losses[-1]:.3f} nats in {STEPS} steps on one batch"
    passed = math.isfinite(fall) and fall >= LEAST_FALL
    detail = detail if passed else f"the loss does not fall: {detail}"
    return Check("learning", passed, fall, LEAST_FALL, detail)
