"""The scoring process: measures one trained model through pipes and reports. Single use.

    python -m asi_lab.scorer --report-fd N --trial-in N --trial-out N --server-in N --server-out N

It holds everything that could be cheated: labels, final norm, output head, loss and lm-eval. It never imports
candidate code. Everything is imported and the tasks are loaded before training is over. It does what the
engine says on standard input: measure at a mark, score full rows, compare them with bare prefixes. Exit
status: 0 done (the report says how), 1 or 2 a message for the user or a traceback on standard error, 3 the
trial went away, 4 the server did.
"""

from __future__ import annotations

import os

os.environ["TQDM_DISABLE"] = "1"  # read when lm-eval imports tqdm; bars would fill the log
os.environ["HF_HUB_OFFLINE"] = "1"  # the engine has fetched all data sets: all candidates get the same

import argparse
import contextlib
import io
import resource
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

import msgspec
import torch

from asi_lab.common import process
from asi_lab.common.wire import Gone, WireError
from asi_lab.errors import LabError
from asi_lab.protocol import (
    SERVER_UNUSABLE,
    TRIAL_UNUSABLE,
    Alive,
    Answered,
    Compare,
    Failed,
    Measured,
    MeasureMark,
    Ready,
    Report,
    Scored,
    ScoreJob,
    ScoreWhole,
    command_decoder,
    encoder,
)
from asi_lab.records import CandidateState
from asi_lab.scorer.client import Remote
from asi_lab.scorer.fault import CandidateFault
from asi_lab.scorer.listening import Listening, Pulse
from asi_lab.scorer.scoring import Scoring

DESCRIPTORS = ("--report-fd", "--trial-in", "--trial-out", "--server-in", "--server-out")


class Unusable(Exception):
    """The trial or the server went away; `status` is ours to end with."""

    def __init__(self, who: str, status: int, why: Gone) -> None:
        super().__init__(f"the {who} went away: {why}")
        self.status = status


def follow(
    scoring: Scoring, trial: Remote, server: Remote, commands: IO[bytes], report: Callable[[Report], None]
) -> None:
    """Do what the engine says, to the end.

    Raises:
        CandidateFault: the candidate ends in a failure; in `forged` where it answered what is no answer.
        Unusable: the trial or the server is gone.
        DataError: a task cannot be scored.
    """
    for line in commands:
        match command_decoder.decode(line):
            case MeasureMark(step):
                with _asking("trial", TRIAL_UNUSABLE):
                    report(Measured(scoring.measure(trial, step)))
                    trial.go_on()
            case ScoreWhole(checkpoint):
                with _asking("trial", TRIAL_UNUSABLE):
                    scoring.score(trial, Path(checkpoint))
                report(Answered())
            case Compare() as wanted:
                with _asking("server", SERVER_UNUSABLE):
                    report(Scored(scoring.compare(server, wanted)))
                return


@contextlib.contextmanager
def _asking(who: str, status: int) -> Iterator[None]:
    try:
        yield
    except Gone as error:
        raise Unusable(who, status, error) from error
    except WireError as error:  # said before the pipe is closed, on which the trial ends
        raise CandidateFault(CandidateState.FORGED, f"the {who} cannot be scored: {error}") from error


def main(command_line: Sequence[str] | None = None) -> int:
    """Entry point of the process; returns its exit status."""
    parser = argparse.ArgumentParser(description="A scoring process of asi-lab; started by the engine.")
    for name in DESCRIPTORS:
        parser.add_argument(name, type=int, required=True)
    parser.add_argument("--memory-bytes", type=int, default=0, help="most that it may allocate; 0: no limit")
    arguments = parser.parse_args(command_line)
    process.die_with_parent()
    _limit(arguments.memory_bytes)

    def report(message: Report) -> None:
        os.write(arguments.report_fd, encoder.encode(message) + b"\n")

    pulse = Pulse(lambda: report(Alive()))
    try:
        return _work(arguments, pulse, report)
    except Unusable as error:
        print(error, file=sys.stderr)
        return error.status
    except LabError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    finally:
        pulse.stop()


def _limit(memory_bytes: int) -> None:
    """What a candidate answers shall not make this process take the machine's memory, nor leave a core."""
    process.limit({resource.RLIMIT_CORE: 0})
    if memory_bytes:
        process.limit({resource.RLIMIT_DATA: memory_bytes})


def _work(arguments: argparse.Namespace, pulse: Pulse, report: Callable[[Report], None]) -> int:
    """Wait for the job and do it; returns the exit status."""
    commands = io.BufferedReader(Listening(sys.stdin.fileno(), pulse))
    report(Ready())
    line = commands.readline()
    if not line:
        return 0
    job = msgspec.json.decode(line, type=ScoreJob)
    torch.set_num_threads(job.threads or process.physical_cores())
    scoring = Scoring(job)

    def remote(reader: int, writer: int) -> Remote:
        outgoing = os.fdopen(writer, "wb", buffering=0)
        return Remote(Listening(reader, pulse), outgoing, job.model, scoring.device)

    trial = remote(arguments.trial_in, arguments.trial_out)
    server = remote(arguments.server_in, arguments.server_out)
    try:
        follow(scoring, trial, server, commands, report)
    except CandidateFault as fault:
        report(Failed(fault.state, str(fault)))
    return 0
