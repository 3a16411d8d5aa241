"""The scoring process: measures one trained model through pipes and reports. Single use.

    python -m asi_lab.evaluate.scorer --report-fd N --in-fd N --out-fd N

It holds everything that could be cheated: labels, output head, loss and lm-eval. It never imports
candidate code. Everything is imported and the tasks are loaded before the trial answers, so that
this overlaps with training. Exit status: 0 done (the report says how), 1 or 2 a message for the user
or a traceback on standard error, 3 the trial went away.
"""

from __future__ import annotations

import os

os.environ["TQDM_DISABLE"] = "1"  # read when lm-eval imports tqdm; bars would fill the log

import argparse
import contextlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import msgspec
import torch

from asi_lab import process
from asi_lab.data.shards import validation_windows
from asi_lab.data.tokenizer import Tokenizer
from asi_lab.device import pick_device
from asi_lab.errors import LabError
from asi_lab.evaluate import run
from asi_lab.evaluate.client import HiddenStates
from asi_lab.evaluate.fault import CandidateFault
from asi_lab.evaluate.lm import HiddenStateLM
from asi_lab.evaluate.loss import held_out_loss
from asi_lab.evaluate.wire import WireError, send
from asi_lab.protocol import TRIAL_UNUSABLE, Failed, Ready, Report, Scored, ScoreJob, encoder
from asi_lab.records import Evaluation


def score(job: ScoreJob, reader: IO[bytes], writer: IO[bytes]) -> Evaluation:
    """Measure the model at the other end: the held-out loss first, then the tasks.

    Raises:
        CandidateFault: the candidate ends in a failure.
        LabError: data or tasks are unusable.
        WireError: the trial is gone.
    """
    settings, data = job.evaluate, Path(job.data)
    tokenizer = Tokenizer.load(data)
    windows = validation_windows(data, job.train_context, settings.loss_tokens)
    tasks = run.load(settings.tasks, data / "tasks")
    states = HiddenStates(
        reader,
        writer,
        vocab_size=tokenizer.vocab_size,
        prefix_checks=settings.prefix_checks,
        prefix_tolerance=settings.prefix_tolerance,
        seed=job.data_seed,
        device=str(pick_device(job.device)),
    )
    began = time.perf_counter()
    loss = held_out_loss(states, windows, settings.batch)
    lm = HiddenStateLM(
        states,
        tokenizer,
        max_length=settings.max_length,
        batch=settings.batch,
        batch_tokens=settings.batch * job.train_context,
    )
    results = run.evaluate(lm, tasks, settings.limit, job.data_seed)
    states.finish()
    return Evaluation(
        loss=loss,
        loss_tokens=windows[:, 1:].size,
        tasks=results,
        prefix_error=states.prefix_error,
        prefix_positions=states.prefix_positions,
        seconds=time.perf_counter() - began,
    )


def main(command_line: Sequence[str] | None = None) -> int:
    """Entry point of the process; returns its exit status."""
    parser = argparse.ArgumentParser(description="A scoring process of asi-lab; started by the engine.")
    for name in ("--report-fd", "--in-fd", "--out-fd"):
        parser.add_argument(name, type=int, required=True)
    arguments = parser.parse_args(command_line)
    process.die_with_parent()

    def report(message: Report) -> None:
        os.write(arguments.report_fd, encoder.encode(message) + b"\n")

    report(Ready())
    line = sys.stdin.buffer.readline()
    if not line:
        return 0
    job = msgspec.json.decode(line, type=ScoreJob)
    torch.set_num_threads(job.threads or process.physical_cores())
    try:
        with (
            os.fdopen(arguments.in_fd, "rb", buffering=0) as reader,
            os.fdopen(arguments.out_fd, "wb", buffering=0) as writer,
        ):
            try:
                report(Scored(score(job, reader, writer)))
            except CandidateFault as fault:
                report(Failed(fault.state, str(fault)))
            with contextlib.suppress(WireError):  # the result stands, however the trial ends
                send(writer, {"op": "bye"})
    except WireError as error:
        print(f"the trial went away: {error}", file=sys.stderr)
        return TRIAL_UNUSABLE
    except LabError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
