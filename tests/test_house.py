"""The plan of the house holds: what each contract forbids is found where somebody does it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HALL = 10
"""Modules in the root of the package, beside `__init__` and `__main__`."""

BREAKS = {
    "a room looks up": ("lab/spending.py", "from asi_lab.llm import prices"),
    "the terminal UI calls the command line": ("tui/field.py", "from asi_lab.cli import shared"),
    "neighbours on one floor": ("scoring/noise.py", "from asi_lab.llm import prices"),
    "trial and scorer know each other": ("trial/life.py", "from asi_lab.scorer import fault"),
    "the loop knows the terminal UI": ("loop.py", "from asi_lab.tui import field"),
    "roles know each other": ("analyst/tags.py", "from asi_lab.engineer import texts"),
    "a process is imported, not started": ("engineer/check.py", "from asi_lab.trial import precision"),
    "torch in the engine": ("engineer/check.py", "import torch"),
    "torch through the file that is shared": ("engineer/check.py", "from asi_lab.common import device"),
    "kernels lean on the lab": ("kernels/decay.py", "from asi_lab import errors"),
}


def contracts(folder: Path) -> subprocess.CompletedProcess[str]:
    """What the import contracts say of a copy of the package."""
    command = [
        sys.executable,
        "-c",
        "from importlinter.cli import lint_imports_command as run; run()",
        "--no-cache",
    ]
    environment = os.environ | {"PYTHONPATH": str(folder)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.fixture
def copied(tmp_path) -> Path:
    shutil.copytree(
        ROOT / "asi_lab", tmp_path / "asi_lab", ignore=shutil.ignore_patterns("__pycache__", "*.xz")
    )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


@pytest.mark.parametrize("what", BREAKS)
def test_who_breaks_a_contract_is_found(copied, what):
    place, line = BREAKS[what]
    assert contracts(copied).returncode == 0
    file = copied / "asi_lab" / place
    before = file.read_text() if file.exists() else ""
    file.write_text(f"{before}\n{line}\n")
    found = contracts(copied)
    assert found.returncode == 1, found.stdout
    assert "BROKEN" in found.stdout


def test_every_room_stands_on_a_floor():
    """A new package or a new module in the hall has a place in the plan."""
    plan = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (floors,) = [contract["layers"] for contract in plan if contract["type"] == "layers"]
    placed = {room for floor in floors for room in floor.split(" | ")}
    package = ROOT / "asi_lab"
    modules = {f"asi_lab.{file.stem}" for file in package.glob("[!_]*.py")}
    rooms = {f"asi_lab.{folder.parent.name}" for folder in package.glob("*/__init__.py")}
    apart = {f"asi_lab.{name}" for name in ("kernels", "prompts", "cognition", "lineage_repo")}
    assert modules | rooms - apart == placed
    assert len(modules) == HALL
