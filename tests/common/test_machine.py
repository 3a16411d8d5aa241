"""How busy the machine is, as the tools and NVML tell it."""

from __future__ import annotations

from types import SimpleNamespace

import psutil
import pytest

from asi_lab.common.machine import Gauge, Gpu


class Nvml:
    """NVML with two boards, of which the second tells no power."""

    class NVMLError(Exception):
        pass

    NVML_TEMPERATURE_GPU = 0
    gone = False

    def nvmlDeviceGetCount(self):  # noqa: N802  as NVML has it
        if self.gone:
            raise self.NVMLError
        return 2

    def nvmlDeviceGetHandleByIndex(self, index):  # noqa: N802
        return index

    def nvmlDeviceGetName(self, handle):  # noqa: N802
        return f"Board {handle}"

    def nvmlDeviceGetMemoryInfo(self, handle):  # noqa: N802
        return SimpleNamespace(used=10, total=100)

    def nvmlDeviceGetUtilizationRates(self, handle):  # noqa: N802
        return SimpleNamespace(gpu=87)

    def nvmlDeviceGetPowerUsage(self, handle):  # noqa: N802
        if handle == 1:
            raise self.NVMLError
        return 412_000

    def nvmlDeviceGetTemperature(self, handle, sensor):  # noqa: N802
        return 61


def test_gpus_are_told_as_far_as_they_tell(tmp_path):
    nvml = Nvml()
    gauge = Gauge(nvml)
    assert gauge.read(tmp_path).gpus == (
        Gpu("Board 0", 0.87, 10, 100, 412.0, 61),
        Gpu("Board 1", 0.87, 10, 100, None, 61),
    )
    nvml.gone = True
    assert gauge.read(tmp_path).gpus == ()


def test_the_machine_is_measured(tmp_path):
    found = Gauge().read(tmp_path)
    assert 0 <= found.cpu <= 1
    assert found.cores == psutil.cpu_count()
    assert 0 < found.used < found.total
    assert 0 < found.disk_free <= found.disk_total


def test_a_place_that_is_gone_is_an_error(tmp_path):
    with pytest.raises(OSError):
        Gauge().read(tmp_path / "gone")
