"""What training costs."""

from types import SimpleNamespace

import pytest
import torch

from asi_lab.lab.config import from_preset
from asi_lab.records import Training
from asi_lab.scoring import references
from asi_lab.trial.model import LanguageModel, load_architecture
from asi_lab.trial.train import meter

CPU = torch.device("cpu")


def test_six_operations_for_each_weight_of_body_and_head(tmp_path):
    path = tmp_path / "architecture.py"
    path.write_text(references.source("delta_net"))
    with torch.device("meta"):
        model = LanguageModel(load_architecture(path), from_preset("340m").model, 50_257)
    assert meter.flops_per_token(model) == 6 * (302_388_224 + 50_257 * 1024)


def test_the_rate_of_products_is_what_the_clock_says(monkeypatch):
    monkeypatch.setattr(meter, "PRODUCT_SIZES", {"cpu": 64})
    ticks = iter([0.0, 0.5, 1.0, 1.25, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])
    monkeypatch.setattr(meter.time, "perf_counter", lambda: next(ticks))
    assert meter.matmul_rate(CPU, torch.float32) == 2 * 64**3 / 0.25


def test_utilisation_is_the_share_of_that_rate():
    training = Training(9, 5, 1, 1, 4.0, 2.0, 1000.0, 1.0, flops_per_token=6e6, matmul_rate=6e10)
    assert training.utilisation == pytest.approx(0.1)
    assert Training(9, 5, 1, 1, 4.0, 2.0, 1000.0, 1.0).utilisation is None


class Board:
    """NVML as far as it is asked; the counter is in millijoules."""

    class NVMLError(Exception):
        pass

    def __init__(self, *counts) -> None:
        self.counts, self.names = list(counts), []

    def nvmlDeviceGetHandleByUUID(self, name):  # noqa: N802
        self.names.append(name)
        return "handle"

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):  # noqa: N802
        assert handle == "handle"
        if (count := self.counts.pop(0)) is None:
            raise self.NVMLError
        return count


def test_energy_is_the_difference_of_the_boards_counter(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="12-34"))
    gpu = torch.device("cuda", 0)
    board = Board(1_000_000, 3_500_000)
    assert meter.EnergyMeter(gpu, board).joules() == 2500.0
    assert board.names == ["GPU-12-34"]
    assert meter.EnergyMeter(gpu, Board(None, None)).joules() is None
    assert meter.EnergyMeter(CPU, Board()).joules() is None
