"""The trial process: checks a candidate, trains it and its probes, then answers the scorer. Single use.

    python -m asi_lab.trial --report-fd N --in-fd N --out-fd N

It imports everything, says `Ready`, waits for one `TrialJob` on standard input and does it in its working
directory, where the candidate's code lies.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import msgspec
import torch
from torch import nn

from asi_lab import protocol
from asi_lab.common import process
from asi_lab.common.device import pick_device
from asi_lab.data.probes import PROBES
from asi_lab.protocol import CHECKPOINT_FILE, TrialJob
from asi_lab.records import CandidateState, Training
from asi_lab.trial.answering import Fault, serve
from asi_lab.trial.life import CandidateFailed, Ends, Reporter, live, residual_of
from asi_lab.trial.model import load_architecture
from asi_lab.trial.preflight import Exam, Verdict, examine, recheck
from asi_lab.trial.probes import Seeds, Snapshots, train
from asi_lab.trial.train import checkpoint
from asi_lab.trial.train.job import build_model, prepare_fit, seed_everything
from asi_lab.trial.train.ranks import Alone, Group, Ranks, rank_count, start_others


def run(job: TrialJob, report: Reporter, ends: Ends) -> None:
    """Do the job and serve the scorer until the engine ends the process.

    Raises:
        CandidateFailed: with the state in which the candidate ends. Whatever candidate code raises.
    """
    torch.set_num_threads(job.train.threads or process.physical_cores())
    seed_everything(job.seed)
    layer = load_architecture(Path(protocol.ARCHITECTURE_FILE).absolute())
    if job.task != "serve":
        _preflight(layer, job, report)
    if job.task != "check":
        with os.fdopen(ends.reader, "rb") as incoming, os.fdopen(ends.writer, "wb", buffering=0) as outgoing:
            _Run(layer, job, report, incoming, outgoing).go()


def _preflight(layer: type[nn.Module], job: TrialJob, report: Reporter) -> None:
    """Make all checks; the candidate ends in the state of the first that it fails."""
    path = str(Path(protocol.ARCHITECTURE_FILE).absolute())
    device = pick_device(job.device)
    exam = Exam(
        layer, path, job.model, job.train, job.limits, job.vocab_size, device, job.data_seed, job.reach
    )
    _judge(list(examine(exam)), report)
    report(protocol.Stage(CandidateState.PREFLIGHTED))


def _judge(verdicts: Sequence[Verdict], report: Reporter, prefix: str = "") -> None:
    """Report verdicts.

    Raises:
        CandidateFailed: one of them is bad.
    """
    told = (
        msgspec.structs.replace(check, name=prefix + check.name, detail=check.detail[-protocol.MOST_TEXT :])
        for check, _ in verdicts
    )
    report(protocol.Checked(tuple(told)))
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
        self.snapshots = Snapshots(layer, self.device)
        self._told = time.monotonic()

    def go(self) -> None:
        """Train, or take up the checkpoint, check again for leaks, train the probes, and answer full rows."""
        if self.job.task == "serve":
            checkpoint.load_trained(self.model, Path(CHECKPOINT_FILE))
            self.report(protocol.Loaded())
        else:
            self.report(protocol.Stage(CandidateState.TRAINING))
            training = self._train()
            _judge(self._recheck(), self.report, protocol.TRAINED)
            checkpoint.save_trained(self.model, Path(CHECKPOINT_FILE))
            self.report(protocol.Trained(training))
        self._probe()
        self.model.eval()
        residual = residual_of(self.model, self.device)
        serve(residual, self.incoming, self.outgoing, snapshot=self.snapshots.residual)

    def _train(self) -> Training:
        job, size = self.job, rank_count(self.job, self.device)
        ranks: Ranks = Alone()
        if size > 1:
            start_others(job, size)
            ranks = Group(0, size, self.device)
        return prepare_fit(self.model, job, ranks, self.report, self._stand_still).run()

    def _stand_still(self, step: int) -> None:
        """Answer the scorer at a mark."""
        self.report(protocol.AtMark(step))
        serve(
            residual_of(self.model, self.device),
            self.incoming,
            self.outgoing,
            around=[self.model.head.weight, *self.model.norm.parameters()],
            recheck=self._faults,
        )

    def _probe(self) -> None:
        """Train the probes of the job, and keep their weights at every mark."""
        job = self.job
        for name in job.probes:
            probe, seeds = PROBES[name], Seeds(job.seed, job.shared_seed, job.data_seed)
            models = train(self.snapshots.layer, probe, self.device, seeds, self._pulse)
            for step, model in zip(probe.marks, models, strict=True):
                self.snapshots.keep(probe, step, model)
            self.report(protocol.Probed(name))
            self._told = time.monotonic()

    def _pulse(self) -> None:
        if time.monotonic() - self._told > protocol.PULSE_SECONDS:
            self._told = time.monotonic()
            self.report(protocol.Alive())

    def _recheck(self) -> list[Verdict]:
        path = str(Path(protocol.ARCHITECTURE_FILE).absolute())
        context = self.job.train.context
        return list(recheck(self.model, self.job.vocab_size, self.device, path, context))

    def _faults(self) -> list[Fault]:
        checks = enumerate(check for check, _ in self._recheck())
        return [(place, check.line or 0) for place, check in checks if not check.passed]


def main() -> int:
    """Do the one job of this process; returns its exit status."""
    return live("A trial process of asi-lab; started by the engine.", TrialJob, run)
