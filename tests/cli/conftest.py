"""A small lab that a real engine has searched (its trials are simulated), and ways to run the program."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from asi_lab.cli import cli
from asi_lab.lab import Lab, Store
from asi_lab.records import Candidate
from tests.simulated_engine import make_lab

ENGINE = Path(__file__).parent.parent / "simulated_engine.py"
CANDIDATES = 8
SETTINGS = "[baselines]\nseeds = 2\nmax_seeds = 2\n"

Run = Callable[..., Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `asi-lab` with arguments in this process, 80 columns wide and not on a terminal."""
    for name in ("ASI_LAB", "FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments: object) -> Result:
        result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        return result

    return run


@pytest.fixture
def program() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `asi-lab` with arguments as a process of its own."""

    def program(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "asi_lab", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)  # type: ignore[call-overload]

    return program


@pytest.fixture
def candidates() -> Callable[[Lab], list[Candidate]]:
    """Read all records of a lab."""

    def read(lab: Lab) -> list[Candidate]:
        with Store.open_readonly(lab.store) as store:
            return list(store.candidates())

    return read


def start_engine(lab: Lab, experiments: int, delay: float = 0.001) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(ENGINE), str(lab.path), str(experiments), str(delay)]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


@pytest.fixture(scope="session")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """A lab with finished candidates, failed ones among them. Only for reading."""
    lab = make_lab(tmp_path_factory.mktemp("searched"), SETTINGS, seed=1)
    assert start_engine(lab, CANDIDATES).wait(timeout=120) == 0
    return lab


@pytest.fixture
def copied(searched: Lab, tmp_path: Path) -> Lab:
    """A copy of the searched lab that a test may change."""
    return Lab(shutil.copytree(searched.path, tmp_path / "copy"))


@pytest.fixture
def fresh(tmp_path: Path) -> Lab:
    """A lab on which no engine has worked."""
    return make_lab(tmp_path, SETTINGS, seed=1, prepared=False)


@pytest.fixture
def engine(copied: Lab):
    """A slow engine at work on a copied lab; gives the lab."""
    process = start_engine(copied, 1000, 0.2)
    yield copied
    process.kill()
    process.wait()
