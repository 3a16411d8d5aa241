"""What training costs: floating-point work against what the device can do, memory, energy."""

from __future__ import annotations

import contextlib
import resource
import time
from typing import Any

import torch
from torch import Tensor

from asi_lab.common.machine import find_nvml
from asi_lab.trial.model import LanguageModel

BACKWARD = 2
"""Backward takes twice the work of forward."""

PRODUCT_SIZES = {"cpu": 1024, "cuda": 8192}
PRODUCTS = 5


def flops_per_token(model: LanguageModel) -> float:
    """Floating-point operations of training on one token: six for each weight of the body and of the head.

    The convention of the field (arXiv 2001.08361, section 2.1): a product with each weight, forward and twice
    backward. What mixers do beyond their weights is left out, so it is the same for equal sizes.
    """
    _, body = model.parameter_counts()
    return 2.0 * (1 + BACKWARD) * (body + model.head.weight.numel())


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations a second that `device` reaches in a large product of matrices [N, N]: the
    best of a few."""
    size = PRODUCT_SIZES[device.type]
    a, b = (torch.full((size, size), 0.5, dtype=dtype, device=device) for _ in range(2))
    times = [_timed_product(a, b) for _ in range(PRODUCTS)]
    return 2.0 * size**3 / min(times)


def _timed_product(a: Tensor, b: Tensor) -> float:
    _wait_for(a.device)
    started = time.perf_counter()
    torch.matmul(a, b)
    _wait_for(a.device)
    return time.perf_counter() - started


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory_mb(device: torch.device) -> float:
    """Most memory held so far in MB: of the GPU, or resident in this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class EnergyMeter:
    """Energy that a GPU has taken since it was begun to be measured, by NVML's counter of the whole board."""

    def __init__(self, device: torch.device, nvml: Any = None) -> None:
        """`nvml` is NVIDIA's binding, by default the installed one."""
        self._nvml: Any = nvml
        self._handle: Any = None
        if device.type == "cuda":
            self._find(str(torch.cuda.get_device_properties(device).uuid))
        self._start = self._read()

    def joules(self) -> float | None:
        """Joules since the start; None without a GPU, or where its board has no counter."""
        now = self._read()
        return None if now is None or self._start is None else now - self._start

    def _find(self, uuid: str) -> None:
        self._nvml = self._nvml or find_nvml()
        if self._nvml is None:
            return
        with contextlib.suppress(self._nvml.NVMLError):
            name = uuid if uuid.startswith("GPU-") else f"GPU-{uuid}"
            self._handle = self._nvml.nvmlDeviceGetHandleByUUID(name)

    def _read(self) -> float | None:
        if self._handle is None:
            return None
        try:
            return float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)) / 1000
        except self._nvml.NVMLError:  # boards before Volta do not count
            return None
