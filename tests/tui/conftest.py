"""Labs for the tests of the terminal lab; what is remembered goes nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from asi_lab.lab import Lab
from tests.tui.labs import fresh, search

CANDIDATES = 8


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch) -> None:
    for name in ("STATE", "CONFIG", "CACHE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))
    for name in ("EDITOR", "VISUAL", "PAGER", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def lab(tmp_path_factory) -> Lab:
    """A finished search; tests only look at it."""
    made = fresh(tmp_path_factory.mktemp("tui"))
    search(made, CANDIDATES)
    return made


@pytest.fixture
def own(tmp_path: Path) -> Lab:
    """A lab of the test's own."""
    return fresh(tmp_path)
