"""Training steps of whole models for `benchmarks/gpu.py`: DeltaNet as this lab builds it, and as fla does."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from msgspec.structs import replace
from torch import Tensor, nn
from torch.autograd import DeviceType

from asi_lab.lab.config import from_preset
from asi_lab.settings import Settings
from asi_lab.trial.model import LanguageModel
from asi_lab.trial.train.meter import flops_per_token, matmul_rate, peak_memory_mb
from asi_lab.trial.train.optimisation import Optimisation
from asi_lab.trial.train.ranks import Alone

MODELS = ("ours", "fla")
WARM_UP, STEPS = 3, 10


class FlaDeltaNet(nn.Module):
    """fla's DeltaNet of the same widths and vocabulary, all that it can fuse fused, called as ours is."""

    def __init__(self, settings: Settings, vocabulary: int) -> None:
        super().__init__()
        from fla.models import DeltaNetConfig, DeltaNetForCausalLM

        model = settings.model
        config = DeltaNetConfig(
            hidden_size=model.width,
            num_heads=model.heads,
            num_hidden_layers=model.layers,
            intermediate_size=max(8, round(model.mlp_ratio * model.width / 8) * 8),
            tie_word_embeddings=model.tie_embeddings,
            vocab_size=vocabulary,
            use_cache=False,
            fuse_cross_entropy=False,
            fuse_linear_cross_entropy=True,
        )
        self.model = DeltaNetForCausalLM(config)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens [B, L + 1] -> loss and auxiliary loss."""
        tokens = tokens[:, :-1]
        loss: Tensor = self.model(input_ids=tokens, labels=tokens).loss
        return loss, torch.zeros_like(loss)


def settings_of(preset: str, tiny: bool) -> Settings:
    """The preset with steps of one micro-batch; cut down for a try on a CPU."""
    settings = from_preset(preset)
    model, train = settings.model, settings.train
    if tiny:
        model, train = replace(model, layers=1, width=32, heads=2), replace(train, context=32, micro_batch=2)
    return replace(settings, model=model, train=replace(train, batch=train.micro_batch))


def measure(preset: str, kind: str, device: torch.device, tiny: bool, only_compile: bool) -> dict[str, Any]:
    """Tokens a second, use of the device's product rate, peak memory of training steps on random tokens;
    nothing where it is only to be compiled."""
    from asi_lab.lineage_repo.delta_net.architecture import DeltaNet

    settings = settings_of(preset, tiny)
    train, vocabulary = settings.train, 97 if tiny else settings.data.vocabulary
    torch.manual_seed(0)
    ours = LanguageModel(DeltaNet, settings.model, vocabulary)
    flops = flops_per_token(ours)
    model: Any = ours if kind == "ours" else FlaDeltaNet(settings, vocabulary)
    model.to(device).train()
    if kind == "ours" and device.type == "cuda" and train.compile != "off":
        ours.compile_blocks()
    tokens = torch.randint(0, vocabulary, (train.batch, train.context + 1), device=device)
    optimisation = Optimisation(model, train, Alone())
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)

    for _ in range(1 if tiny or only_compile else WARM_UP):
        optimisation.step(tokens, train.learning_rate)
    if only_compile:
        return {}
    steps = 1 if tiny else STEPS
    started = time.perf_counter()
    for _ in range(steps):
        optimisation.step(tokens, train.learning_rate)  # waits for the device
    seconds = (time.perf_counter() - started) / steps
    rate = tokens.shape[0] * train.context / seconds
    return {
        "parameters": sum(p.numel() for p in optimisation.parameters) / 1e6,
        "tokens": train.batch * train.context,
        "milliseconds": 1e3 * seconds,
        "rate": rate,
        "teraflops": rate * flops / 1e12,
        "share": rate * flops / matmul_rate(device, torch.bfloat16),
        "megabytes": peak_memory_mb(device),
        "kernels": kernels(lambda: optimisation.step(tokens, train.learning_rate)) if kind == "ours" else [],
    }


def kernels(step: Callable[[], object]) -> list[tuple[str, int, float]]:
    """Name, launches and milliseconds of the kernels that a step runs on a GPU, the longest first."""
    with torch.profiler.profile() as profile:
        step()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    taken: dict[str, list[float]] = {}
    for event in profile.events():
        if event.device_type is DeviceType.CUDA and not event.is_user_annotation:
            taken.setdefault(event.name[:80], []).append(event.device_time / 1e3)
    found = [(name, len(times), sum(times)) for name, times in taken.items()]
    return sorted(found, key=lambda kernel: -kernel[2])
