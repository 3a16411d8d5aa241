"""Several ranks train one model as one would, over a real all-reduce."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from asi_lab.data.prepare import prepare
from asi_lab.lab.config import from_preset
from asi_lab.protocol import RESUME_FILE, Progress, Saved, TrialJob, saved_file
from asi_lab.scoring import references
from asi_lab.settings import Data
from asi_lab.trial.model import load_architecture
from asi_lab.trial.train.job import build_model, prepare_fit
from asi_lab.trial.train.ranks import Alone, Group, start_others

MICRO = from_preset("micro")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    words = np.random.default_rng(0).integers(0, 40, size=20_000)
    (folder / "text.txt").write_text(" ".join(f"word{w}" for w in words))
    prepare(Data(source=f"text:{folder / 'text.txt'}", tokenizer="byte"), folder / "data")
    return folder / "data"


def job(data: Path, precision: str, ranks: int, task: str = "train") -> TrialJob:
    train = msgspec.structs.replace(
        MICRO.train,
        steps=8,
        batch=5,
        micro_batch=2,
        context=32,
        warmup_steps=2,
        precision=precision,
        ranks=ranks,
        save_minutes=1e-9,
    )
    model = msgspec.structs.replace(MICRO.model, width=32, heads=2)
    return TrialJob(task, str(data), 257, 3, 0, "cpu", model, train, MICRO.limits)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16_weights"])
def test_two_ranks_train_as_one_and_go_on_when_cut_off(data, tmp_path, precision):
    """An uneven batch: three rows and two. Run in a process of its own, which ends as the group does."""
    alone = losses_of(data, tmp_path / "alone", precision, ranks=1)
    together = losses_of(data, tmp_path / "together", precision, ranks=2)
    assert sorted(together) == list(range(1, 9))
    assert together == pytest.approx(alone, rel=1e-5 if precision == "fp32" else 1e-2)
    (tmp_path / "together" / "ranks").unlink()
    (tmp_path / "together" / saved_file(7)).rename(tmp_path / "together" / RESUME_FILE)
    again = losses_of(data, tmp_path / "together", precision, ranks=2, task="resume")
    assert sorted(again) == [8]
    assert again[8] == pytest.approx(together[8], rel=1e-6)


def losses_of(data: Path, folder: Path, precision: str, ranks: int, task: str = "train") -> dict[int, float]:
    folder.mkdir(exist_ok=True)
    (folder / "architecture.py").write_text(references.source("delta_net"))
    (folder / "job.json").write_bytes(msgspec.json.encode(job(data, precision, ranks, task)))
    command = [sys.executable, __file__]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return {int(step): float(loss) for step, loss in map(str.split, done.stdout.splitlines())}


def test_a_rank_that_fails_ends_them_all(data, tmp_path):
    (tmp_path / "architecture.py").write_text("raise RuntimeError('broken here')\n")
    code = (
        "import msgspec, sys, time\n"
        "from asi_lab.protocol import TrialJob\n"
        "from asi_lab.trial.train.ranks import start_others\n"
        "start_others(msgspec.json.decode(sys.stdin.buffer.read(), type=TrialJob), 2)\n"
        "time.sleep(60)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        input=msgspec.json.encode(job(data, "fp32", 2)),
        capture_output=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 1
    assert b"broken here" in done.stderr
    assert b"rank 1 ended with status 1" in done.stderr


def main() -> None:
    """Rank 0 as the trial is it; prints the loss of every step."""
    torch.set_num_threads(1)
    found = msgspec.json.decode(Path("job.json").read_bytes(), type=TrialJob)
    model = build_model(load_architecture(Path("architecture.py").absolute()), found, CPU)
    ranks = Alone()
    if found.train.ranks > 1:
        start_others(found, found.train.ranks)
        ranks = Group(0, found.train.ranks, CPU)

    def see(report: object) -> None:
        if isinstance(report, Progress):
            print(report.step, report.loss)
        assert not isinstance(report, Saved) or Path(saved_file(report.step)).exists()

    prepare_fit(model, found, ranks, see).run()
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
