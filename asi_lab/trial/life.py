"""What the two processes that run candidate code have in common: how they begin, report and fail."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

import msgspec
import torch
from torch import Tensor, nn

from asi_lab import protocol
from asi_lab.common import process
from asi_lab.common.wire import Closed, WireError
from asi_lab.data.builtin import HIDDEN_PACKAGES
from asi_lab.records import CandidateState
from asi_lab.trial.model import LanguageModel
from asi_lab.trial.train.trainer import Diverged

ERROR_LINES = 40

Job = TypeVar("Job")


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


class Ends(NamedTuple):
    """Descriptors: where the engine reads reports, and the two of the scorer."""

    report: int
    reader: int
    writer: int


def live(description: str, kind: type[Job], work: Callable[[Job, Reporter, Ends], None]) -> int:
    """The life of such a process: say `Ready`, wait for the job on standard input, do it, say how it failed.

    Everything that is imported is imported before. Returns the exit status. A fault of the candidate becomes
    a `Failed` report, a fault of ours a traceback and exit status 1."""
    parser = argparse.ArgumentParser(description=description)
    for name in ("--report-fd", "--in-fd", "--out-fd"):
        parser.add_argument(name, type=int, required=True)
    arguments = parser.parse_args()
    process.die_with_parent()
    process.tune_allocator()
    process.forget_packages(HIDDEN_PACKAGES)
    warm_up()
    report = Reporter(arguments.report_fd)
    report(protocol.Ready(gpu=torch.cuda.is_available()))
    line = sys.stdin.buffer.readline()
    if not line:
        return 0
    job = msgspec.json.decode(line, type=kind)
    try:
        with _failures(), contextlib.suppress(Closed):  # the scorer is done
            work(job, report, Ends(arguments.report_fd, arguments.in_fd, arguments.out_fd))
    except CandidateFailed as failure:
        report(protocol.Failed(failure.state, str(failure)[-protocol.MOST_TEXT :]))
    return 0


@contextlib.contextmanager
def _failures() -> Iterator[None]:
    """Turn whatever candidate code raises into the state in which the candidate ends."""
    try:
        yield
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


def residual_of(model: LanguageModel, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Token ids [B, L] -> the residual stream [B, L, D] in float32: in bf16 the length of a batch alone moves
    it by more than the comparison with bare prefixes allows."""

    def residual(ids: Tensor) -> Tensor:
        with torch.no_grad():
            return model.residual(ids.to(device)).float()

    return residual


def _trace(error: BaseException) -> str:
    """The last lines of the traceback, which is what a debugger reads, and the end of the message."""
    frames = "".join(traceback.format_tb(error.__traceback__)).splitlines()[-ERROR_LINES:]
    message = "".join(traceback.format_exception_only(error)).strip()[-protocol.MOST_TEXT // 2 :]
    return "\n".join([*("\n".join(frames)[-protocol.MOST_TEXT // 2 :].splitlines()), message])


def warm_up() -> None:
    """Take one step with everything a trial uses, so that what torch imports late is there before the job."""
    parameter = nn.Parameter(torch.ones(2, 2))
    optimizer = torch.optim.AdamW([parameter], fused=True)
    torch.autograd.backward(nn.functional.cross_entropy(parameter, torch.zeros(2, dtype=torch.long)))
    nn.utils.clip_grad_norm_([parameter], 1.0)
    optimizer.step()
