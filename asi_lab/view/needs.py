"""What a search will need of this machine, found by a dry run before it begins: the one table of it.

Memory is counted by the trial's own code on tensors without values (`asi_lab.trial.demand`), for the
seed architecture; candidates may need `limits.memory_ratio` times as much of a layer. The margins below were
measured on one machine, or are guesses, as they say.
"""

from __future__ import annotations

import os
import shutil
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import msgspec
import psutil

from asi_lab.common import cgroup
from asi_lab.common.machine import Gauge
from asi_lab.common.process import physical_cores, run_module
from asi_lab.data.pace import TextPace
from asi_lab.engineer.allocation import Allocation, share_out, visible_gpus
from asi_lab.errors import ConfigError, DataError
from asi_lab.lab import Lab
from asi_lab.protocol import ARCHITECTURE_FILE, TrialJob
from asi_lab.records.demand import Demand
from asi_lab.scoring.baselines import SEED_ARCHITECTURE
from asi_lab.settings import Settings
from asi_lab.view import models
from asi_lab.view.diagnosis import Diagnosis

GB = 1e9

HEAP = 1.4
"""Resident memory on a CPU over the most that lives in training and in answering together: the C library
keeps in pieces what was freed. Measured at micro and mini (docs/training.md)."""

GPU_HEAP = 1.1
"""The same of torch's allocator on a GPU: a guess."""

GPU_PROCESS = 0.6 * GB
"""What a process takes of a GPU before its first tensor: a guess. Trial and scorer are there together."""

WAITING = 5
"""Processes of ours beside each trial: its server and scorer, and the next three."""

OF_CANDIDATES = 0.05 * GB
"""Disk that a thousand candidates take in store and lineage: a guess."""

GPT2_BYTES = 1.4e6
"""The tokenizer file of GPT-2 on the hub."""

TRAIN_SHARE = 0.79
"""Of the text, what is trained on (docs/data.md)."""


class Room(NamedTuple):
    """Memory of the device that one trial computes on, in bytes: all of it, and what others hold now."""

    total: float
    used: float


def demand(settings: Settings, device: str = "") -> Demand:
    """Count what the seed architecture asks of the settings' device, or of another: `cpu` or `cuda`.

    Raises:
        DataError: the process that counts failed.
        ConfigError: there are too few GPUs for the settings.
    """
    settled = _allocation(settings).settled(settings)
    vocabulary = settings.data.vocabulary
    job = TrialJob.of(settled, "train", data="", vocab_size=vocabulary, seed=settings.seed)
    code = resources.files("asi_lab.lineage_repo") / SEED_ARCHITECTURE / ARCHITECTURE_FILE
    told = [device or settings.device, str(code), msgspec.json.encode(job).decode()]
    return msgspec.json.decode(run_module("asi_lab.trial.demand", told, lambda: None)[-1], type=Demand)


def slots(settings: Settings) -> int:
    """Trials at the same time on this machine. Raises as `demand`."""
    return _allocation(settings).count


def _allocation(settings: Settings) -> Allocation:
    return share_out(settings, visible_gpus(os.environ), physical_cores())


def examine(lab: Lab, settings: Settings) -> list[Diagnosis]:
    """What a search with these settings needs, each beside what is there."""
    try:
        found = demand(settings)
    except ConfigError as error:
        return [Diagnosis("memory", "fail", str(error), "correct what the message names")]
    except DataError as error:
        words = f"could not be counted: {str(error).splitlines()[-1]}"
        return [Diagnosis("memory", "warn", words, "see the check of torch")]
    room = _gpu_room(lab) if found.device == "cuda" else _ram()
    return [
        memory(settings, found, slots(settings), room, models.beside(settings.agents)),
        storage(settings, found, slots(settings), lab.path),
        text(settings, lab),
    ]


def memory(
    settings: Settings, found: Demand, count: int, room: Room, beside: tuple[str, int] | None
) -> Diagnosis:
    """Memory of the device, beside a language model on the same machine, if there is one."""
    gpu, ratio = found.device == "cuda", GPU_HEAP if found.device == "cuda" else HEAP
    others = WAITING * found.private
    base = 2 * GPU_PROCESS if gpu else found.resident
    trial = base + ratio * (found.peak if gpu else found.training + found.answering)
    need = trial if gpu else count * (trial + others)
    model = beside[1] if beside else 0
    where = "a GPU" if gpu else f"{_gb(room.total)} of memory"
    lines = [
        f"{settings.preset}, {SEED_ARCHITECTURE}, {found.params:,} parameters, counted without training:",
        f"weights {_gb(found.weights + found.twins)}, gradients {_gb(found.gradients)}, AdamW "
        f"{_gb(found.moments)}, activations {_gb(found.activations)} for {settings.train.micro_batch} x "
        f"{settings.train.context} tokens;",
        f"full rows of {settings.evaluate.batch} x {settings.evaluate.max_length} tokens take at most "
        f"{_gb(found.answering)}",
        f"a trial takes about {_gb(trial)} with what processes and allocator add (a guess)",
    ]
    if not gpu:
        lines.append(f"{count} at a time with the processes beside: {_gb(need)} of {_gb(room.total)}")
    else:
        lines.append(f"of {where} with {_gb(room.total)}, {_gb(room.used)} in use now")
    if beside:
        lines.append(f"beside it {beside[0]} with {_gb(model)}, more with its context")
    limit = settings.limits.memory_gb * 2**30
    certain = found.peak if gpu else count * (found.resident + found.training)
    detail = "\n".join(lines)
    if certain > room.total:
        return Diagnosis("memory", "fail", detail, _smaller(settings, found, room.total, base, ratio, count))
    if not gpu and found.resident + found.training > limit:
        over = f"set limits.memory_gb above {trial / 2**30:.1f}, or "
        return Diagnosis("memory", "fail", detail, over + _smaller(settings, found, limit, base, ratio, 1))
    if need + model > room.total - room.used:
        fix = _smaller(settings, found, room.total - room.used - model, base, ratio, count)
        return Diagnosis("memory", "warn", detail, f"{fix}; or end what else uses the memory")
    if not gpu and trial > limit:
        return Diagnosis("memory", "warn", detail, f"set limits.memory_gb above {trial / 2**30:.1f}")
    return Diagnosis("memory", "ok", detail)


def _smaller(settings: Settings, found: Demand, room: float, base: float, ratio: float, count: int) -> str:
    """What to change so that a trial fits into its share of the room."""
    train, share = settings.train, (room / count - base) / ratio
    if count > 1 and found.peak < room - base:
        return f"set search.slots below {count}"
    if found.answering > found.training and found.training <= share:
        return f"set evaluate.batch below {settings.evaluate.batch}"
    share -= found.answering if found.device == "cpu" else 0
    each = found.activations / train.micro_batch
    fitting = [
        rows
        for rows in range(1, train.micro_batch)
        if train.batch % rows == 0 and found.state + rows * each <= share
    ]
    if fitting:
        return f"set train.micro_batch = {fitting[-1]}, which fits by this count, or train.recompute = true"
    if found.state <= share and not train.recompute:
        return "set train.micro_batch = 1 and train.recompute = true"
    return "take a smaller preset, or a device with more memory"


def storage(settings: Settings, found: Demand, count: int, path: Path) -> Diagnosis:
    """Disk for shards, checkpoints, what training goes on from, and candidates."""
    bytes_each = 2 if settings.data.vocabulary <= 1 << 16 else 4
    shards = 0 if (path / "data").exists() else settings.data.max_tokens * bytes_each
    weights, resumed = 4 * found.params, 12 * found.params
    kept = weights * (1 if settings.limits.checkpoints == "best" else 1000)
    at_work = count * (2 * weights + (2 * resumed if settings.train.save_minutes else 0))
    need = shards + kept + at_work + OF_CANDIDATES
    place = next(folder for folder in (path, *path.parents) if folder.exists())
    free = shutil.disk_usage(place).free
    detail = (
        f"shards at most {_gb(shards)}; a checkpoint {_gb(weights)}, what training goes on from "
        f"{_gb(resumed)}; {count} at a time {_gb(at_work)};\na thousand candidates in store and lineage "
        f"about {_gb(OF_CANDIDATES)} (a guess), their checkpoints {_gb(kept)}: {_gb(need)} of "
        f"{_gb(free)} free"
    )
    if resumed + weights > settings.limits.disk_gb * 2**30:
        least = (resumed + weights) / 2**30
        return Diagnosis("storage", "fail", detail, f"set limits.disk_gb above {least:.1f}")
    if need > free:
        fix = "free some space, lower data.max_tokens, or set limits.checkpoints to best"
        return Diagnosis("storage", "fail" if at_work + shards > free else "warn", detail, fix)
    return Diagnosis("storage", "ok", detail)


def text(settings: Settings, lab: Lab) -> Diagnosis:
    """Time to make tokenizer and shards, and what is downloaded for it."""
    data = settings.data
    if (lab.data / "manifest.json").exists():
        return Diagnosis("text", "ok", "tokenized already")
    try:
        told = run_module("asi_lab.data.pace", [msgspec.json.encode(data).decode()], lambda: None)
    except DataError as error:
        return Diagnosis("text", "fail", str(error).splitlines()[-1], "correct data.source in lab.toml")
    found = msgspec.json.decode(told[-1], type=TextPace)
    seconds = found.tokenizer_seconds + found.seconds_per_million * data.max_tokens / 1e6
    stands = f", {' and '.join(found.stand_ins)} in its place" if found.stand_ins else ""
    lines = [
        f"tokenizing takes at most {_duration(seconds)} for {data.max_tokens:,} tokens: a guess from a "
        f"megabyte{stands}"
    ]
    if data.source.startswith("hf:") and not Path(data.source[3:]).is_absolute():
        size = data.max_tokens * found.bytes_per_token / TRAIN_SHARE
        lines.append(f"about {_gb(size)} of text are streamed (a guess); compressed, and none of it is kept")
    if data.tokenizer == "gpt2":
        cached = "the tokenizer of GPT-2" not in stands and not any("tokenizer" in s for s in found.stand_ins)
        here = "is in the cache" if cached else f"is downloaded, {GPT2_BYTES / 1e6:.1f} MB"
        lines.append(f"the tokenizer {here}")
    return Diagnosis("text", "ok", "\n".join(lines))


def _ram() -> Room:
    found, bound = psutil.virtual_memory(), cgroup.own().memory_bytes()
    return Room(min(found.total, bound), found.total - found.available)


def _gpu_room(lab: Lab) -> Room:
    """That of the smallest GPU. Models that Ollama has loaded are in use too."""
    place = next(folder for folder in (lab.path, *lab.path.absolute().parents) if folder.exists())
    gpus = Gauge().read(place).gpus
    if not gpus:
        raise DataError("the GPU's memory cannot be read: NVML finds no driver")
    return min((Room(gpu.total, gpu.used) for gpu in gpus), key=lambda room: room.total - room.used)


def _gb(size: float) -> str:
    """Bytes in decimal units."""
    return f"{size / GB:.1f} GB" if size >= GB else f"{size / 1e6:.0f} MB"


def _duration(seconds: float) -> str:
    from asi_lab.view import tables

    return tables.duration(seconds)
