"""A process that trains along with a trial; started by the trial, in its sandbox.

python -m asi_lab.trial.train.follower RANK SIZE
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import msgspec
import torch

from asi_lab.common import process
from asi_lab.common.device import pick_device
from asi_lab.data.builtin import HIDDEN_PACKAGES
from asi_lab.protocol import ARCHITECTURE_FILE, TrialJob
from asi_lab.trial.model import load_architecture
from asi_lab.trial.train.job import build_model, prepare_fit
from asi_lab.trial.train.ranks import Group, device_of
from asi_lab.trial.train.trainer import Diverged


def main() -> None:
    """Read the job from standard input and train to the end, silently: rank 0 tells of it."""
    process.die_with_parent()
    process.tune_allocator()
    process.forget_packages(HIDDEN_PACKAGES)
    rank, size = int(sys.argv[1]), int(sys.argv[2])
    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=TrialJob)
    torch.set_num_threads(job.train.threads or process.physical_cores())
    device = device_of(rank, pick_device(job.device))
    if device.type == "cuda":
        torch.cuda.set_device(device)  # Triton launches on the current one
    model = build_model(load_architecture(Path(ARCHITECTURE_FILE).absolute()), job, device)
    fit = prepare_fit(model, job, Group(rank, size, device))
    torch.manual_seed(job.seed + rank)  # dropout differs between ranks
    with contextlib.suppress(Diverged):  # on all ranks at once
        fit.run()


if __name__ == "__main__":
    main()
