"""Probes in the trial: tiny models around the candidate's layer, trained on synthetic streams.

A model's weights at each mark of its training go to a file, and are all that is tested; the same weights
answer the scorer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asi_lab.common.randomness import keyed_seed
from asi_lab.data.probes import MODEL, PROBES, Probe, Streams
from asi_lab.protocol import probe_file, snapshot_name
from asi_lab.trial.answering import Residual
from asi_lab.trial.life import residual_of
from asi_lab.trial.model import LanguageModel
from asi_lab.trial.train import checkpoint
from asi_lab.trial.train.job import seed_everything
from asi_lab.trial.train.optimisation import build_optimizer
from asi_lab.trial.train.schedule import learning_rate_factor
from asi_lab.trial.train.trainer import Diverged


class Seeds(NamedTuple):
    """Of the layers' initialisation, of what is around them, and of the streams."""

    layers: int
    shared: int
    data: int


def build(layer: type[nn.Module], probe: Probe, device: torch.device, shared_seed: int = 0) -> LanguageModel:
    """The probe's model at its initialisation; what a layer draws comes from the present generators."""
    return LanguageModel(layer, MODEL, probe.vocabulary, shared_seed).to(device)


def train(
    layer: type[nn.Module],
    probe: Probe,
    device: torch.device,
    seeds: Seeds,
    pulse: Callable[[], None] = lambda: None,
) -> Iterator[LanguageModel]:
    """The model at each mark of its training; the same object, which goes on to the next mark afterwards.

    Args:
        layer: the candidate's.
        probe: what it learns.
        device: where.
        seeds: those of the trial; the probe's name is added to each.
        pulse: called before each step.

    Raises:
        Diverged: loss or gradient left the finite numbers. Whatever the layer raises.
    """
    seed_everything(keyed_seed(seeds.layers, probe.name))
    model = build(layer, probe, device, keyed_seed(seeds.shared, probe.name))
    weights, settings = [p for p in model.parameters() if p.requires_grad], probe.train
    optimizer = build_optimizer(weights, settings)
    model.train()
    for step, batch in enumerate(probe.training(keyed_seed(seeds.data, probe.name, "train"))):
        pulse()
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * learning_rate_factor(step, settings)
        loss, aux = answer_loss(model, batch)
        torch.autograd.backward(loss + aux)
        norm = nn.utils.clip_grad_norm_(weights, settings.gradient_clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if not (math.isfinite(loss.item()) and math.isfinite(norm.item())):
            raise Diverged(f"{probe.name}, step {step + 1}: loss {loss.item()}, gradient norm {norm.item()}")
        if step + 1 in probe.marks:
            yield model


def answer_loss(model: LanguageModel, streams: Streams) -> tuple[Tensor, Tensor]:
    """Mean loss of the answers in nats, and the auxiliary loss, both scalars."""
    device = model.head.weight.device
    hidden, aux = model.hidden(torch.from_numpy(streams.ids).to(device))
    rows, columns = (torch.from_numpy(place).to(device) for place in streams.places)
    wanted = torch.from_numpy(streams.wanted).to(device)
    return F.cross_entropy(model.head(hidden[rows, columns]), wanted), aux


class Snapshots:
    """A candidate's models of probes, each at one mark of its training.

    Weights are those that were kept here, or else lie in the working directory; whichever they are, they are
    loaded into a new model, as they will be where they are tested.
    """

    def __init__(self, layer: type[nn.Module], device: torch.device) -> None:
        self.layer, self.device = layer, device
        self._kept: dict[str, dict[str, Tensor]] = {}
        self._latest: tuple[str, Residual] | None = None

    def keep(self, probe: Probe, step: int, model: LanguageModel) -> None:
        """Keep the weights of now, here and in a file."""
        checkpoint.save_trained(model, Path(probe_file(probe.name, step)))
        weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        self._kept[snapshot_name(probe.name, step)] = weights

    def residual(self, name: str) -> Residual:
        """Answers for one of them, by its `snapshot_name`; the latest stays as it is."""
        if self._latest is None or self._latest[0] != name:
            self._latest = name, self._built(name)
        return self._latest[1]

    def _built(self, name: str) -> Residual:
        probe, _, step = name.rpartition("-")
        model = build(self.layer, PROBES[probe], self.device)
        if name in self._kept:
            model.load_state_dict(self._kept[name])
        else:
            checkpoint.load_trained(model, Path(probe_file(probe, int(step))))
        model.eval()
        return residual_of(model, self.device)
