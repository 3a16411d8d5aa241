"""Exams of sources at the scale of the micro preset, as a trial would hold them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import torch

from asi_lab.common import process
from asi_lab.lab.config import from_preset
from asi_lab.protocol import Reach
from asi_lab.settings import Settings
from asi_lab.trial.model import load_architecture
from asi_lab.trial.preflight import Exam

process.tune_allocator()  # as a trial does
MICRO = from_preset("micro")
MakeExam = Callable[..., Exam]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def exam_of(tmp_path: Path) -> MakeExam:
    """Make the exam of a source; `train` and `model` hold changes of the settings."""

    def make(source: str, settings: Settings = MICRO, **changes: object) -> Exam:
        path = tmp_path / "architecture.py"
        path.write_text(source)
        model = {k: v for k, v in changes.items() if k in settings.model.__struct_fields__}
        train = {k: v for k, v in changes.items() if k in settings.train.__struct_fields__}
        return Exam(
            load_architecture(path),
            str(path),
            msgspec.structs.replace(settings.model, **model),
            msgspec.structs.replace(settings.train, **train),
            settings.limits,
            1024,
            torch.device("cpu"),
            0,
            Reach.of(settings.evaluate),
        )

    return make
