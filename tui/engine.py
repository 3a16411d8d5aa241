"""Starts an engine of its own life: it outlives the terminal."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from asi_lab import disk
from asi_lab.errors import DiskError
from asi_lab.lab import Lab
from asi_lab.settings import Settings

LOG = "engine.log"


def facts(lab: Lab, settings: Settings) -> list[tuple[str, str]]:
    """What a search on a lab would be, as headings and words."""
    agents, model, train = settings.agents, settings.model, settings.train
    confinement = "auto: the best that works here" if settings.sandbox == "auto" else settings.sandbox
    return [
        ("lab", str(lab.path)),
        ("preset", settings.preset),
        ("model", f"{model.layers} blocks of width {model.width}, {train.steps:,} steps a candidate"),
        ("device", settings.device),
        ("GPU", "one is there" if Path("/dev/nvidia0").exists() else "none found"),
        ("sandbox", confinement),
        ("models", ", ".join(agents.models) or "none: the grammar researches"),
        ("check first", "asi-lab doctor; asi-lab estimate"),
    ]


def start(lab: Lab, experiments: int | None = None, hours: float | None = None) -> Path:
    """Start a detached search on a lab; returns the file that its narration goes to.

    Raises:
        DiskError: that file cannot be written.
    """
    log = lab.path / LOG
    command = [sys.executable, "-m", "asi_lab", "--lab", str(lab.path), "--no-tui"]
    command += ["--experiments", str(experiments)] if experiments is not None else []
    command += ["--hours", str(hours)] if hours is not None else []
    try:
        with log.open("ab") as out:
            subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )
    except OSError as error:
        raise DiskError(f"The engine was not started. {disk.explain(error, log)}") from None
    return log
