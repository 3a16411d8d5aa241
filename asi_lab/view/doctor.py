"""Is this machine, and this lab, fit for a search? Each finding comes with its fix."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
from rich.table import Table
from rich.text import Text

from asi_lab import sandbox
from asi_lab.common import cgroup
from asi_lab.common.text import plain
from asi_lab.data.corpus import files_of
from asi_lab.data.manifest import load_manifest
from asi_lab.errors import ConfigError, LabError
from asi_lab.lab import Lab, Store, config
from asi_lab.researcher.index import annoy_available
from asi_lab.settings import Settings
from asi_lab.view import models, needs
from asi_lab.view.diagnosis import Diagnosis, Verdict

_TORCH_SECONDS = 120.0
_COMMAND_SECONDS = 10.0
_LEAST_GB, _GOOD_GB = 1.0, 10.0
_TORCH = """
import json, torch
gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
print(json.dumps({"version": torch.__version__, "cuda": torch.version.cuda, "gpus": gpus}))
"""


def examine(lab: Lab, preset: str | None = None) -> list[Diagnosis]:
    """Run every check. The lab need not exist; what a search needs is then found for a new one of a preset,
    as it is where one is named.

    Raises:
        ConfigError: there is no preset of that name.
    """
    new = config.from_preset(preset or config.DEFAULT_PRESET) if preset or not lab.exists else None
    checks: dict[str, Callable[[], Sequence[Diagnosis]]] = {
        "python": lambda: [Diagnosis("python", "ok", f"{platform.python_version()} at {sys.executable}")],
        "torch": _torch,
        "git": lambda: [_git()],
        "machine": lambda: [_machine(lab)],
        "disk": lambda: [_disk(lab.path)],
        "sandbox": lambda: [_sandbox(lab)],
        "annoy": lambda: [_annoy()],
        "models": lambda: models.examine(lab),
        "lab": lambda: [_lab(lab)],
        "data": lambda: [_data(lab)],
        "needs": lambda: _needs(lab, new),
    }
    return [finding for name, check in checks.items() for finding in _findings(name, check)]


def _findings(name: str, check: Callable[[], Sequence[Diagnosis]]) -> Sequence[Diagnosis]:
    """What a check finds. One that breaks takes no other with it."""
    try:
        return check()
    except Exception as error:
        detail = f"could not be examined: {type(error).__name__}: {error}"
        return [Diagnosis(name, "fail", detail, "report this, with the output of asi-lab doctor")]


def is_fit(findings: Sequence[Diagnosis]) -> bool:
    """Whether nothing that a search needs is missing."""
    return all(finding.verdict != "fail" for finding in findings)


def table(findings: Sequence[Diagnosis]) -> Table:
    """The findings for reading."""
    styles = {"ok": "green", "warn": "yellow", "fail": "bold red"}
    shown = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    for finding in findings:
        text = Text(plain(finding.detail, multiline=True))
        if finding.fix:
            text.append(f"\nfix: {plain(finding.fix, multiline=True)}", style="bold")
        shown.add_row(Text(finding.verdict, style=styles[finding.verdict]), Text(finding.name), text)
    return shown


def _torch() -> list[Diagnosis]:
    """Torch and the GPU, seen from a process of its own: importing torch takes seconds."""
    status, out, error = _run([sys.executable, "-P", "-c", _TORCH], _TORCH_SECONDS)
    if status != 0:
        told = error.strip().splitlines() or ["no message"]
        return [Diagnosis("torch", "fail", f"cannot be imported: {told[-1]}", "pip install torch==2.13.0")]
    found: dict[str, Any] = json.loads(out.strip().splitlines()[-1])
    torch = Diagnosis("torch", "ok", f"{found['version']} (CUDA {found['cuda'] or 'not built in'})")
    if found["gpus"]:
        return [torch, Diagnosis("gpu", "ok", ", ".join(found["gpus"]))]
    if shutil.which("nvidia-smi") and _run(["nvidia-smi", "-L"], _COMMAND_SECONDS)[0] == 0:
        detail = "there is an NVIDIA GPU, but torch cannot use it: candidates train on the CPU"
        return [
            torch,
            Diagnosis("gpu", "warn", detail, "install a CUDA build of torch 2.13.0 for your driver"),
        ]
    detail = "none: candidates train on the CPU, which is right for the presets micro and mini"
    return [torch, Diagnosis("gpu", "warn", detail, "for 20m and larger use a machine with an NVIDIA GPU")]


def _git() -> Diagnosis:
    status, out, _ = _run(["git", "--version"], _COMMAND_SECONDS)
    if status == 0:
        return Diagnosis("git", "ok", out.strip())
    return Diagnosis("git", "fail", "not found: the lineage is a git repository", "apt install git")


def _machine(lab: Lab) -> Diagnosis:
    """The processors and the memory that this machine, or the container around us, lets us use."""
    groups, settings = cgroup.own(), None
    with contextlib.suppress(LabError):  # what is wrong with lab.toml is told by the check `lab`
        settings = lab.settings()
    memory = min(psutil.virtual_memory().total, groups.memory_bytes()) / 2**30
    quota = groups.cores()
    limited = f", of which a control group allows {quota:g}" if quota < (os.cpu_count() or 1) else ""
    detail = f"{os.cpu_count()} processors{limited}; {memory:.1f} GB of memory"
    wanted = settings.limits.memory_gb if settings else 0.0
    if memory >= wanted:
        return Diagnosis("machine", "ok", detail)
    words = f"{detail}, while limits.memory_gb allows a trial {wanted:g}"
    return Diagnosis("machine", "warn", words, f"allow more, or set limits.memory_gb below {memory:.1f}")


def _disk(path: Path) -> Diagnosis:
    place = next(folder for folder in (path, *path.parents) if folder.exists())
    free = shutil.disk_usage(place).free / 1e9
    detail = f"{free:,.1f} GB free at {place}"
    if free >= _GOOD_GB:
        return Diagnosis("disk", "ok", detail)
    verdict: Verdict = "warn" if free >= _LEAST_GB else "fail"
    return Diagnosis("disk", verdict, detail, f"free some space: {_GOOD_GB:.0f} GB or more are comfortable")


def _sandbox(lab: Lab) -> Diagnosis:
    """What confines a trial here, found out by running it, and how to get the level above."""
    findings = sandbox.probe()
    best = next(finding for finding in findings if finding.holds)
    detail = f"{best.level.value}; it leaves open {', '.join(sandbox.uncovered(best.level))}"
    if best is findings[0]:
        return Diagnosis("sandbox", "ok", detail)
    missing = [finding for finding in findings if not finding.holds]
    detail += "".join(f"\n{finding.level.value} does not work: {finding.reason}" for finding in missing)
    fix = "\n".join(f"{finding.level.value}: {finding.fix}" for finding in missing)
    wanted = "auto"
    with contextlib.suppress(LabError):  # what is wrong with lab.toml is told by the check `lab`
        wanted = lab.settings().sandbox
    try:
        sandbox.choose(wanted, findings)
    except LabError:
        return Diagnosis("sandbox", "fail", f'{detail}\nlab.toml asks for sandbox = "{wanted}"', fix)
    return Diagnosis("sandbox", "warn", detail, fix)


def _needs(lab: Lab, new: Settings | None) -> list[Diagnosis]:
    """What a search needs, in this lab or a new one; what is wrong with lab.toml the check `lab` tells."""
    try:
        return needs.examine(lab if new is None else Lab(lab.path / "new"), new or lab.settings())
    except ConfigError:
        return []


def _annoy() -> Diagnosis:
    if annoy_available():
        return Diagnosis("annoy", "ok", "installed: large labs search motivations approximately")
    detail = "not installed: search is exact, which is as fast up to some ten thousand candidates"
    return Diagnosis("annoy", "warn", detail, "with a C++ compiler installed: pip install annoy")


def _lab(lab: Lab) -> Diagnosis:
    if not lab.exists:
        return Diagnosis("lab", "ok", f"none at {lab.path} yet; asi-lab init or asi-lab --no-tui makes one")
    try:
        settings = lab.settings()
        count = 0
        if lab.has_results():
            with Store.open_readonly(lab.store) as store:
                count = max(store.last_id(), 0)
    except LabError as error:
        return Diagnosis("lab", "fail", str(error), f"put {lab.path} right as the message says")
    pid = lab.engine_pid()
    engine = f"an engine runs, process {pid}" if pid is not None else "no engine runs"
    writable = os.access(lab.path, os.W_OK)
    detail = f"{lab.path}: preset {settings.preset}, {count} candidates, {engine}"
    if writable:
        return Diagnosis("lab", "ok", detail)
    return Diagnosis("lab", "fail", f"{detail}; the directory cannot be written", f"chmod u+w {lab.path}")


def _data(lab: Lab) -> Diagnosis:
    if not lab.exists:
        return Diagnosis("data", "ok", "built on first use")
    try:
        source = lab.settings().data.source
        if (lab.data / "manifest.json").exists():
            made = load_manifest(lab.data)
            return Diagnosis("data", "ok", f"{made.source}, {made.train.tokens:,} training tokens")
    except LabError as error:
        return Diagnosis("data", "fail", str(error), "see the message")
    if source.startswith("text:") and not files_of(source):
        return Diagnosis("data", "fail", f"{source}: no file matches", "correct data.source in lab.toml")
    return Diagnosis("data", "ok", f"{source}, built by the first search")


def _run(command: Sequence[str], seconds: float) -> tuple[int, str, str]:
    """Exit status, output and errors of a command; a missing or hanging one has status 127 or 124."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return 124, "", f"no answer within {seconds:.0f} s"
    except OSError as error:
        return 127, "", str(error)
    return done.returncode, done.stdout, done.stderr
