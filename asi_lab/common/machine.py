"""How busy the machine is: processor, memory, disk, and NVIDIA's GPUs through NVML."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import msgspec
import psutil


class Gpu(msgspec.Struct, frozen=True):
    """One GPU. `load` is in [0, 1], memory in bytes, `watts` and `celsius` None where they are not told."""

    name: str
    load: float
    used: int
    total: int
    watts: float | None = None
    celsius: int | None = None


class Machine(msgspec.Struct, frozen=True):
    """One moment. `cpu` is the load of all `cores` in [0, 1]; memory and disk are in bytes."""

    cpu: float
    cores: int
    used: int
    total: int
    disk_free: int
    disk_total: int
    gpus: tuple[Gpu, ...] = ()


class Gauge:
    """Measures again and again. `nvml` is NVIDIA's binding; by default the installed one, if it finds a
    driver."""

    def __init__(self, nvml: Any = None) -> None:
        self._nvml = nvml if nvml is not None else find_nvml()
        psutil.cpu_percent()  # the load is counted from here

    def read(self, place: Path) -> Machine:
        """The moment; `place` is on the disk that counts. Raises OSError where it is gone."""
        memory, disk = psutil.virtual_memory(), psutil.disk_usage(str(place))
        return Machine(
            cpu=psutil.cpu_percent() / 100,
            cores=psutil.cpu_count() or 1,
            used=memory.total - memory.available,
            total=memory.total,
            disk_free=disk.free,
            disk_total=disk.total,
            gpus=self._gpus(),
        )

    def _gpus(self) -> tuple[Gpu, ...]:
        nvml = self._nvml
        if nvml is None:
            return ()
        try:
            handles = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
            return tuple(self._gpu(handle) for handle in handles)
        except nvml.NVMLError:  # the driver was reloaded, or a GPU has fallen off the bus
            return ()

    def _gpu(self, handle: Any) -> Gpu:
        nvml, watts, celsius = self._nvml, None, None
        name, memory = nvml.nvmlDeviceGetName(handle), nvml.nvmlDeviceGetMemoryInfo(handle)
        with contextlib.suppress(nvml.NVMLError):  # some boards do not tell
            watts = nvml.nvmlDeviceGetPowerUsage(handle) / 1000
        with contextlib.suppress(nvml.NVMLError):
            celsius = nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)
        load = nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
        return Gpu(name, load, memory.used, memory.total, watts, celsius)


def find_nvml() -> Any:
    """NVML, ready to be asked; None where there is no driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml
