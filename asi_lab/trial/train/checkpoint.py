"""Files that training leaves: the trained weights, and what it goes on from when it is cut off."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


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


def save_trained(model: nn.Module, path: Path) -> None:
    """Write all weights and buffers as safetensors, each tensor with bytes of its own: tied ones twice."""
    seen: set[int] = set()
    partial = path.with_suffix(".partial")
    save_file({name: _own(tensor, seen) for name, tensor in model.state_dict().items()}, partial)
    partial.replace(path)


def _own(tensor: Tensor, seen: set[int]) -> Tensor:
    """The tensor on the CPU, contiguous, sharing its memory with none before it."""
    plain = tensor.detach().cpu().contiguous()
    storage = plain.untyped_storage()
    if storage.data_ptr() in seen or storage.nbytes() != plain.numel() * plain.element_size():
        plain = plain.clone()
    seen.add(plain.untyped_storage().data_ptr())
    return plain


def load_trained(model: nn.Module, path: Path) -> None:
    """Load what `save_trained` wrote into `model`."""
    model.load_state_dict(load_file(path))
