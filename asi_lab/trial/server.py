"""The server process: answers bare prefixes from a checkpoint. Single use.

    python -m asi_lab.trial.server --report-fd N --in-fd N --out-fd N

It has never held a held-out text when it is given the checkpoint, and candidate code is loaded only then.
Before it answers anything it counts what the model asks of a machine.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from asi_lab.common import process
from asi_lab.common.device import pick_device
from asi_lab.protocol import ARCHITECTURE_FILE, CHECKPOINT_FILE, Counted, ServeJob
from asi_lab.trial.answering import serve
from asi_lab.trial.life import Ends, Reporter, live, residual_of
from asi_lab.trial.model import LanguageModel, load_architecture
from asi_lab.trial.probes import Snapshots
from asi_lab.trial.train import checkpoint
from asi_lab.trial.work import per_token


def run(job: ServeJob, report: Reporter, ends: Ends) -> None:
    """Load the checkpoint, count, and answer the scorer until the engine ends the process; checkpoints of
    probes are loaded as they are asked for."""
    torch.set_num_threads(job.threads or process.physical_cores())
    layer = load_architecture(Path(ARCHITECTURE_FILE).absolute())
    device = pick_device(job.device)
    model = LanguageModel(layer, job.model, job.vocab_size).to(device)
    checkpoint.load_trained(model, Path(CHECKPOINT_FILE))
    report(Counted(per_token(model, job.context)))
    checkpoint.load_trained(model, Path(CHECKPOINT_FILE))  # counting may have moved buffers
    model.eval()
    with os.fdopen(ends.reader, "rb") as incoming, os.fdopen(ends.writer, "wb", buffering=0) as outgoing:
        residual, snapshots = residual_of(model, device), Snapshots(layer, device)
        serve(residual, incoming, outgoing, snapshot=snapshots.residual)


if __name__ == "__main__":
    sys.exit(live("A server process of asi-lab; started by the engine.", ServeJob, run))
