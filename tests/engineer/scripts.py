"""What processes of a trial say, as scripts for those who listen."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import msgspec
import psutil

from asi_lab import protocol
from asi_lab.engineer.executor import Source
from asi_lab.lab.config import from_preset
from asi_lab.protocol import Progress, Report, TrialJob
from asi_lab.records import CandidateState, Check, Evaluation, HeldOut, TaskResult, Training, Work

S = CandidateState
MICRO = from_preset("micro", device="cpu")
STEPS, MARKS, EACH = 6, (2, 4), 3 * 7

Line = tuple[Source, Report]


def job(task: str = "train", steps: int = STEPS, marks: Sequence[int] = MARKS, **limits: float) -> TrialJob:
    """The job of a trial of a few steps, with checkpoints."""
    train = msgspec.structs.replace(MICRO.train, steps=steps, batch=3, context=7, save_minutes=1e-9)
    limits_of = msgspec.structs.replace(MICRO.limits, **limits)
    return TrialJob(task, "", 257, 0, 0, "cpu", MICRO.model, train, limits_of, tuple(marks))


def checked(prefix: str = "", names: Sequence[str] = protocol.PREFLIGHT_CHECKS, failing: str = "") -> Line:
    """Verdicts under their names, one of which may be bad; those behind it are left out."""
    found = []
    for name in names:
        found.append(Check(prefix + name, name != failing, 0.5, 1.0, "detail"))
        if name == failing:
            break
    return "trial", protocol.Checked(tuple(found))


def progress(step: int, loss: float = 3.0, **other: float) -> Line:
    point = Progress(step, STEPS, step * EACH, loss, 1e-3, 100.0, 10.0)
    return "trial", msgspec.structs.replace(point, **other)


READY: Line = ("trial", protocol.Ready())
PREFLIGHTED: Line = ("trial", protocol.Stage(S.PREFLIGHTED))
TRAINING: Line = ("trial", protocol.Stage(S.TRAINING))
CHECKS = checked()
AGAIN = checked(protocol.TRAINED, protocol.LEAK_CHECKS)
CLAIMS = Training(1000, 500, STEPS, STEPS * EACH, 0.1, 1e-6, 1e9, 1.0)
TRAINED: Line = ("trial", protocol.Trained(CLAIMS))
LOADED: Line = ("trial", protocol.Loaded())
ANSWERED: Line = ("scorer", protocol.Answered())
COUNTED: Line = ("server", protocol.Counted(Work(1e6, 2e5)))
TASK = TaskResult("task", 0.5, "choice_probability", True, 0.25, 10)
SCORED: Line = ("scorer", protocol.Scored(Evaluation(4.0, 100, (TASK,), prefix_positions=8, seconds=0.1)))


def saved(step: int) -> Line:
    return "trial", protocol.Saved(step)


def mark(step: int, loss: float = 4.5) -> list[Line]:
    """Training stands still, and the scorer measures."""
    return [
        ("trial", protocol.AtMark(step)),
        ("scorer", protocol.Measured(HeldOut(step, loss, seconds=0.1))),
    ]


def steps(after: int = 0, marks: Sequence[int] = MARKS, saves: Sequence[int] = ()) -> list[Line]:
    """All points of the curve behind a step, with marks and checkpoints between them."""
    lines: list[Line] = []
    for step in range(after + 1, STEPS + 1):
        lines.append(progress(step))
        lines += mark(step) if step in marks else []
        lines += [saved(step)] if step in saves else []
    return lines


BEGUN = [READY, CHECKS, PREFLIGHTED, TRAINING]
TRIAL = [*BEGUN, *steps(), AGAIN, TRAINED]
SERVED = [ANSWERED, ("server", protocol.Ready()), COUNTED, SCORED]
WHOLE = [*TRIAL, *SERVED]


def running(module: str) -> list[psutil.Process]:
    """The processes below this one that run a module; not what guards them."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.cmdline()[3:5] == ["-m", module]:
                found.append(process)
    return found
