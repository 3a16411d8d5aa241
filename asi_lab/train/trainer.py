"""Training of one language model: AdamW, a schedule, clipping, micro-batches.

Deterministic for a seed on a CPU: the same job gives the same losses to the last bit.
"""

from __future__ import annotations

import math
import os
import resource
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import msgspec
import torch
from torch import Tensor, nn

from asi_lab.data.shards import TokenStream
from asi_lab.protocol import Progress
from asi_lab.records import Training
from asi_lab.settings import Train
from asi_lab.train.model import LanguageModel
from asi_lab.train.schedule import learning_rate_factor

CURVE_POINTS = 200
"""Points a training curve has, about; they fall on fixed steps."""


class Diverged(Exception):
    """Loss or gradient left the finite numbers."""


def is_mixed(device: torch.device, precision: str) -> bool:
    """Whether training uses bf16 for matrix products; `auto` means bf16 on a GPU, fp32 on a CPU."""
    return precision == "bf16" or (precision == "auto" and device.type == "cuda")


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Mixed precision where it is asked for."""
    if is_mixed(device, precision):
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()


def build_optimizer(model: nn.Module, train: Train) -> torch.optim.Optimizer:
    """AdamW; only matrices decay."""
    parameters = [p for p in model.parameters() if p.requires_grad]
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


def fit(
    model: LanguageModel,
    stream: TokenStream,
    train: Train,
    report: Callable[[Progress], None],
    marks: Collection[int] = (),
    measure: Callable[[int], None] = lambda step: None,
) -> Training:
    """Train `model` in place and return what it cost and gave.

    `report` receives about `CURVE_POINTS` points of the curve, the first and the last step always among
    them. After so many steps as each of `marks` says, training stands still while `measure` is called with
    the number of steps done; what it takes does not count as training time.

    Raises:
        Diverged: the loss or the gradient norm is not finite.
    """
    device = next(model.parameters()).device
    optimizer = build_optimizer(model, train)
    every = max(1, train.steps // CURVE_POINTS)
    started = time.perf_counter()
    recent: list[float] = []
    model.train()
    for step in range(train.steps):
        factor = learning_rate_factor(step, train)
        for group in optimizer.param_groups:
            group["lr"] = train.learning_rate * factor
        tokens = torch.from_numpy(stream.batch(step)).to(device, non_blocking=True)
        loss = _accumulate(model, tokens, train)
        norm = float(nn.utils.clip_grad_norm_(model.parameters(), train.gradient_clip))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise Diverged(f"step {step + 1}: loss {loss}, gradient norm {norm}")
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        recent = [*recent[-49:], loss]
        if (step + 1) % every == 0 or step + 1 in (1, train.steps):
            done = (step + 1) * train.batch * train.context
            report(
                Progress(
                    step=step + 1,
                    steps=train.steps,
                    tokens=done,
                    loss=loss,
                    learning_rate=train.learning_rate * factor,
                    tokens_per_second=done / (time.perf_counter() - started),
                    memory_mb=peak_memory_mb(device),
                )
            )
        if step + 1 in marks:
            stopped = time.perf_counter()
            with _standing_still(model, device):
                measure(step + 1)
            started += time.perf_counter() - stopped
    seconds = time.perf_counter() - started
    count = train.steps * train.batch * train.context
    params, body = model.parameter_counts()
    return Training(
        params=params,
        body_params=body,
        steps=train.steps,
        tokens=count,
        train_loss=sum(recent) / len(recent),
        seconds=seconds,
        tokens_per_second=count / seconds,
        peak_memory_mb=peak_memory_mb(device),
    )


@contextmanager
def _standing_still(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Eval mode for a while, after which training goes on as if nothing had happened."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        model.eval()
        yield
        model.zero_grad(set_to_none=True)
        model.train()


def _accumulate(model: LanguageModel, tokens: Tensor, train: Train) -> float:
    """Backward over micro-batches of tokens [B, L + 1]; returns the mean loss in nats."""
    parts = torch.split(tokens, train.micro_batch)
    total = 0.0
    for part in parts:
        with autocast(part.device, train.precision):
            loss, aux = model(part)
        ((loss + aux) / len(parts)).backward()
        total += float(loss.detach()) / len(parts)
    return total


def peak_memory_mb(device: torch.device) -> float:
    """Most memory held so far in MB: of the GPU, or resident in this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def save_checkpoint(model: nn.Module, training: Training, path: Path) -> None:
    """Write weights and training record durably: a reader sees the whole file or none."""
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        torch.save({"model": model.state_dict(), "training": msgspec.to_builtins(training)}, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def load_checkpoint(model: nn.Module, path: Path) -> Training:
    """Load what `save_checkpoint` wrote into `model`; nothing in the file is executed."""
    saved = torch.load(path, map_location="cpu", weights_only=True)
    model.load_state_dict(saved["model"])
    return msgspec.convert(saved["training"], Training)
