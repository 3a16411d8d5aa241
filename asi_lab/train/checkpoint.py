"""Files that training leaves: the trained weights, and what it goes on from when it is cut off."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import nn

from asi_lab.records import Training


def save(content: dict[str, Any], path: Path) -> None:
    """Write durably: a reader sees the whole file or none. Unlike `disk.write`, what a full disk cut off
    stays where it is: by the missing space the engine knows that the candidate is not to blame."""
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def load(path: Path) -> dict[str, Any]:
    """Read what `save` wrote, to the CPU; nothing in the file is executed."""
    content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return content


def save_trained(model: nn.Module, training: Training, path: Path) -> None:
    """Write weights and training record."""
    save({"model": model.state_dict(), "training": msgspec.to_builtins(training)}, path)


def load_trained(model: nn.Module, path: Path) -> Training:
    """Load what `save_trained` wrote into `model`."""
    saved = load(path)
    model.load_state_dict(saved["model"])
    return msgspec.convert(saved["training"], Training)
