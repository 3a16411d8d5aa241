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
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import torch

from asi_lab import process
from asi_lab.data.shards import validation_windows
from asi_lab.data.tokenizer import Tokenizer
from asi_lab.device import pick_device
from asi_lab.errors import LabError
from asi_lab.evaluate import run
from asi_lab.evaluate.client import HiddenStates, Trial
from asi_lab.evaluate.fault import CandidateFault
from asi_lab.evaluate.listening import Listening
from asi_lab.evaluate.lm import HiddenStateLM
from asi_lab.evaluate.loss import held_out_loss
from asi_lab.evaluate.wire import WireError, send
from asi_lab.protocol import TRIAL_UNUSABLE, Alive, Failed, Measured, Ready, Report, Scored, ScoreJob, encoder
from asi_lab.randomness import keyed_seed
from asi_lab.records import CandidateState, Evaluation, HeldOut

SUSPECT_CHECKS = 256
"""Prefixes that are compared where a loss is implausibly low."""


class Scorer:
    """Everything that is needed to measure, loaded before the trial answers."""

    def __init__(self, job: ScoreJob) -> None:
        """Raises `LabError` where data or tasks are unusable."""
        settings, data = job.evaluate, Path(job.data)
        self.job, self.settings = job, settings
        self.tokenizer = Tokenizer.load(data)
        self.windows = validation_windows(data, job.train_context, settings.loss_tokens)
        self.mark_windows = validation_windows(data, job.train_context, settings.mark_tokens)
        self.tasks = run.load(settings.tasks, data / "tasks")

    def follow(self, trial: Trial, report: Callable[[Report], None]) -> Evaluation:
        """Measure at every mark, then everything in the end.

        Raises:
            CandidateFault: the candidate ends in a failure.
            WireError: the trial is gone.
        """
        while True:
            step, final = trial.wait()
            if final:
                return self.score(trial)
            report(Measured(self.measure(trial, step)))
            trial.go_on()

    def measure(self, trial: Trial, step: int) -> HeldOut:
        """The held-out loss at a mark. Where it is implausibly low, everything that shows leaks is repeated.

        Raises:
            CandidateFault: the candidate leaks or diverged.
            WireError: the trial is gone.
        """
        began = time.perf_counter()
        states = self._states(trial, step, self.settings.prefix_checks)
        loss = held_out_loss(states, self.mark_windows, self.settings.batch)
        states.finish()
        bound = self.job.suspect_below.get(step)
        suspect = bound is not None and loss < bound
        if suspect:
            thorough = self._states(trial, step + 1, SUSPECT_CHECKS)
            held_out_loss(thorough, self.mark_windows, self.settings.batch)
            thorough.finish()
            if faults := trial.recheck():
                raise CandidateFault(
                    CandidateState.LEAKING,
                    f"after {step} steps the held-out loss was {loss:.4f}, implausibly low (under "
                    f"{bound:.4f}), and the repeated checks found: {faults[0]}",
                )
        return HeldOut(step, loss, states.prefix_error, time.perf_counter() - began, suspect)

    def score(self, trial: Trial) -> Evaluation:
        """The held-out loss, then the tasks.

        Raises:
            CandidateFault, WireError: as `measure`.
            DataError: a task cannot be scored.
        """
        settings = self.settings
        began = time.perf_counter()
        states = self._states(trial, -1, settings.prefix_checks)
        loss = held_out_loss(states, self.windows, settings.batch)
        lm = HiddenStateLM(
            states,
            self.tokenizer,
            max_length=settings.max_length,
            batch=settings.batch,
            batch_tokens=settings.batch * self.job.train_context,
        )
        results = run.evaluate(lm, self.tasks, settings.limit, self.job.data_seed)
        states.finish()
        return Evaluation(
            loss=loss,
            loss_tokens=self.windows[:, 1:].size,
            tasks=results,
            prefix_error=states.prefix_error,
            prefix_positions=states.prefix_positions,
            seconds=time.perf_counter() - began,
        )

    def _states(self, trial: Trial, step: int, checks: int) -> HiddenStates:
        """The model as it is now; probes are drawn anew for every step."""
        return HiddenStates(
            trial.reader,
            trial.writer,
            vocab_size=self.tokenizer.vocab_size,
            prefix_checks=checks,
            prefix_tolerance=self.settings.prefix_tolerance,
            seed=keyed_seed(self.job.data_seed, "probes", step),
            device=str(pick_device(self.job.device)),
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
        scorer = Scorer(job)
        with (
            Listening(arguments.in_fd, lambda: report(Alive())) as reader,
            os.fdopen(arguments.out_fd, "wb", buffering=0) as writer,
        ):
            try:
                report(Scored(scorer.follow(Trial(reader, writer), report)))
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
