"""The trial process: checks a candidate, trains it, then answers the scorer. Single use.

    python -m asi_lab.train.trial --report-fd N --in-fd N --out-fd N

It imports everything, says `Ready`, waits for one `TrialJob` on standard input and does it in its working
directory, where the candidate's code lies. A fault of the candidate becomes a `Failed` report; a fault of
ours becomes a traceback and exit status 1.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

import msgspec
import torch
from torch import Tensor, nn

from asi_lab import process, protocol
from asi_lab.device import pick_device
from asi_lab.evaluate.serve import serve
from asi_lab.evaluate.wire import WireError
from asi_lab.preflight import Exam, Verdict, examine, recheck
from asi_lab.protocol import TrialJob
from asi_lab.records import CandidateState, Training
from asi_lab.train import checkpoint
from asi_lab.train.job import build_model, prepare_fit, seed_everything
from asi_lab.train.model import LanguageModel, load_architecture
from asi_lab.train.ranks import Alone, Group, Ranks, rank_count, start_others
from asi_lab.train.trainer import Diverged

ERROR_LINES = 40


class CandidateFailed(Exception):
    """The candidate ends in `state`."""

    def __init__(self, state: CandidateState, error: str) -> None:
        super().__init__(error)
        self.state = state


class Reporter:
    """Writes reports as JSON lines to the engine's pipe."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __call__(self, report: protocol.Report) -> None:
        """Send one report."""
        os.write(self.descriptor, protocol.encoder.encode(report) + b"\n")


def run(job: TrialJob, report: Reporter, reader: int, writer: int) -> None:
    """Do the job and serve the scorer until it says goodbye.

    Raises:
        CandidateFailed: with the state in which the candidate ends.
    """
    torch.set_num_threads(job.train.threads or process.physical_cores())
    try:
        seed_everything(job.seed)
        layer = load_architecture(Path(protocol.ARCHITECTURE_FILE).absolute())
        if job.task != "serve":
            _preflight(layer, job, report)
        if job.task != "check":
            with os.fdopen(reader, "rb") as incoming, os.fdopen(writer, "wb", buffering=0) as outgoing:
                _Run(layer, job, report, incoming, outgoing).go()
    except (CandidateFailed, WireError):
        raise
    except Diverged as error:
        raise CandidateFailed(CandidateState.DIVERGED, str(error)) from error
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise CandidateFailed(CandidateState.OUT_OF_MEMORY, _trace(error)) from error
    except Exception as error:
        out_of_memory = "can't allocate memory" in str(error) or "not enough memory" in str(error)
        state = CandidateState.OUT_OF_MEMORY if out_of_memory else CandidateState.BROKEN
        raise CandidateFailed(state, _trace(error)) from error


def _preflight(layer: type[nn.Module], job: TrialJob, report: Reporter) -> None:
    """Make all checks; the candidate ends in the state of the first that it fails."""
    path = str(Path(protocol.ARCHITECTURE_FILE).absolute())
    device = pick_device(job.device)
    exam = Exam(layer, path, job.model, job.train, job.limits, job.vocab_size, device, job.data_seed)
    _judge(list(examine(exam)), report)
    report(protocol.Stage(CandidateState.PREFLIGHTED))


def _judge(verdicts: Sequence[Verdict], report: Reporter, prefix: str = "") -> None:
    """Report verdicts.

    Raises:
        CandidateFailed: one of them is bad.
    """
    report(protocol.Checked(tuple(msgspec.structs.replace(c, name=prefix + c.name) for c, _ in verdicts)))
    for check, state in verdicts:
        if not check.passed:
            raise CandidateFailed(state, f"{prefix}{check.name}: {check.detail}")


class _Run:
    """Training of one candidate, and the answers to the scorer meanwhile and afterwards."""

    def __init__(
        self,
        layer: type[nn.Module],
        job: TrialJob,
        report: Reporter,
        incoming: IO[bytes],
        outgoing: IO[bytes],
    ) -> None:
        self.job, self.report = job, report
        self.incoming, self.outgoing = incoming, outgoing
        self.device = pick_device(job.device)
        self.model = build_model(layer, job, self.device)

    def go(self) -> None:
        """Train, or take up the checkpoint, check once more for leaks, and serve."""
        job, trained = self.job, Path(protocol.CHECKPOINT_FILE)
        if job.task == "serve":
            training = checkpoint.load_trained(self.model, trained)
        else:
            self.report(protocol.Stage(CandidateState.TRAINING))
            training = self._train()
            _judge(self._recheck(), self.report, "trained ")
            checkpoint.save_trained(self.model, training, trained)
        self.report(protocol.Trained(training))
        self.model.eval()
        self._serve(job.train.steps, final=True)

    def _train(self) -> Training:
        job, size = self.job, rank_count(self.job, self.device)
        ranks: Ranks = Alone()
        if size > 1:
            start_others(job, size)
            ranks = Group(0, size, self.device)
        return prepare_fit(self.model, job, ranks, self.report, self._measured).run()

    def _measured(self, step: int) -> None:
        self._serve(step, final=False)

    def _serve(self, step: int, *, final: bool) -> None:
        serve(
            _hidden(self.model, self.device),
            self.model.head.weight,
            self.incoming,
            self.outgoing,
            step=step,
            final=final,
            recheck=lambda: [f"{c.name}: {c.detail}" for c, _ in self._recheck() if not c.passed],
        )

    def _recheck(self) -> list[Verdict]:
        path = str(Path(protocol.ARCHITECTURE_FILE).absolute())
        return list(recheck(self.model, self.job.vocab_size, self.device, path))


def _hidden(model: LanguageModel, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Token ids [B, L] -> hidden states [B, L, D] in float32: in bf16 the length of a batch alone moves
    them by more than the prefix checks allow."""

    def hidden(ids: Tensor) -> Tensor:
        with torch.no_grad():
            states, _ = model.hidden(ids.to(device))
        return states.float()

    return hidden


def _trace(error: BaseException) -> str:
    """The last lines of the traceback, which is what a debugger reads."""
    lines = "".join(traceback.format_exception(error)).splitlines()
    return "\n".join(lines[-ERROR_LINES:])


def warm_up() -> None:
    """Take one step with everything a trial uses, so that what torch imports late is there before the job."""
    parameter = nn.Parameter(torch.ones(2, 2))
    optimizer = torch.optim.AdamW([parameter], fused=True)
    torch.autograd.backward(nn.functional.cross_entropy(parameter, torch.zeros(2, dtype=torch.long)))
    nn.utils.clip_grad_norm_([parameter], 1.0)
    optimizer.step()


def main() -> int:
    """Entry point of the process; returns its exit status."""
    parser = argparse.ArgumentParser(description="A trial process of asi-lab; started by the engine.")
    for name in ("--report-fd", "--in-fd", "--out-fd"):
        parser.add_argument(name, type=int, required=True)
    arguments = parser.parse_args()
    process.die_with_parent()
    process.tune_allocator()
    warm_up()
    report = Reporter(arguments.report_fd)
    report(protocol.Ready(gpu=torch.cuda.is_available()))
    line = sys.stdin.buffer.readline()
    if not line:
        return 0
    job = msgspec.json.decode(line, type=TrialJob)
    try:
        run(job, report, arguments.in_fd, arguments.out_fd)
    except CandidateFailed as failure:
        report(protocol.Failed(failure.state, str(failure)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
