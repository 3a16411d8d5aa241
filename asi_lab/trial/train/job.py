"""From a trial's job to a model in training, as every rank does it."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from asi_lab.data.shards import TokenStream
from asi_lab.protocol import RESUME_FILE, Report, TrialJob
from asi_lab.trial.model import LanguageModel
from asi_lab.trial.train.ranks import Ranks
from asi_lab.trial.train.trainer import Fit


def seed_everything(seed: int) -> None:
    """Seed every generator a candidate could draw from."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def build_model(layer: type[nn.Module], job: TrialJob, device: torch.device) -> LanguageModel:
    """The model at its initialisation, the same for all ranks."""
    seed_everything(job.seed)
    model = LanguageModel(layer, job.model, job.vocab_size, job.shared_seed).to(device)
    model.recompute = job.train.recompute
    return model


def prepare_fit(
    model: LanguageModel,
    job: TrialJob,
    ranks: Ranks,
    report: Callable[[Report], None] = lambda report: None,
    measure: Callable[[int], None] = lambda step: None,
) -> Fit:
    """The training run in the working directory, at its start or where it was cut off."""
    stream = TokenStream(Path(job.data), job.train.context, job.train.batch, job.data_seed)
    fit = Fit(model, stream, job.train, report, job.marks, measure, Path(), ranks)
    if job.task == "resume":
        fit.load(Path(RESUME_FILE))
    return fit
