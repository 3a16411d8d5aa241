"""Starts an engine of its own life, which outlives the terminal, and says what a search would be."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from asi_lab import sandbox
from asi_lab.common import disk
from asi_lab.common.machine import Gauge
from asi_lab.common.text import plain
from asi_lab.errors import DiskError, LabError
from asi_lab.lab import Lab
from asi_lab.llm.prices import load_prices
from asi_lab.settings import Settings
from asi_lab.view import models, remote, tables
from asi_lab.view.estimate import estimate

LOG = "engine.log"
LONGEST_LOG = 1 << 20
"""Characters of it that are shown."""
ESTIMATED = 100
"""Candidates that an estimate is made for where no number is given."""


class Wanted(msgspec.Struct, frozen=True):
    """How far a search is to go; None for no limit."""

    experiments: int | None = None
    hours: float | None = None


def facts(lab: Lab, settings: Settings) -> list[tuple[str, str]]:
    """What a search on a lab would be, as far as it can be told at once."""
    model, train = settings.model, settings.train
    return [
        ("lab", str(lab.path)),
        ("preset", f"{settings.preset}, seed {settings.seed}"),
        ("model", f"{model.layers} blocks of width {model.width}, {train.steps:,} steps a candidate"),
        ("agents", ", ".join(settings.agents.models) or "none: the grammar researches, the rubric judges"),
    ]


def findings(lab: Lab, settings: Settings) -> Iterator[tuple[str, str]]:
    """What takes a while to find out: GPU, sandbox, language models, what it takes. For a thread."""
    gpus = Gauge().read(lab.path).gpus
    yield "GPU", ", ".join(plain(gpu.name) for gpu in gpus) or "none found: candidates train on the CPU"
    try:
        level = sandbox.choose(settings.sandbox, sandbox.probe()).level
        yield "sandbox", f"{level.value}; asi-lab doctor tells what it leaves open"
    except LabError as error:
        yield "sandbox", str(error)
    for found in models.examine(lab):
        yield found.name, plain(found.detail)
    try:
        yield "estimate", _estimate(lab, settings)
    except LabError as error:
        yield "estimate", str(error)


def _estimate(lab: Lab, settings: Settings) -> str:
    with remote.results(lab) as store:
        found = estimate(settings, store, load_prices(lab.path), ESTIMATED)
    cost = "of unknown price" if found.dollars is None else f"${found.dollars:,.2f}"
    time = "time unknown" if found.seconds is None else f"about {tables.duration(found.seconds)}"
    return f"{ESTIMATED} candidates: {time} ({found.basis['time']}); {found.tokens:,} tokens, {cost}"


def start(lab: Lab, wanted: Wanted) -> Path:
    """Start a detached search on a lab; returns the file that its narration goes to.

    Raises:
        DiskError: that file cannot be written.
    """
    log = lab.path / LOG
    command = [sys.executable, "-P", "-m", "asi_lab", "--lab", str(lab.path), "--no-tui"]
    command += ["--experiments", str(wanted.experiments)] if wanted.experiments is not None else []
    command += ["--hours", str(wanted.hours)] if wanted.hours is not None else []
    try:
        with log.open("ab") as out:
            subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )
    except OSError as error:
        raise DiskError(f"The engine was not started. {disk.explain(error, log)}") from None
    return log


def narrated(lab: Lab) -> str:
    """The end of what engines that were started from here have narrated.

    Raises:
        DiskError: there is no such file, or it cannot be read.
    """
    log = lab.path / LOG
    try:
        return log.read_text(encoding="utf-8", errors="replace")[-LONGEST_LOG:]
    except FileNotFoundError:
        raise DiskError(f"There is no {log}: no engine was started from here.") from None
    except OSError as error:
        raise DiskError(disk.explain(error, log)) from None
