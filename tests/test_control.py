"""When a search is to end."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from asi_lab.common import clock
from asi_lab.common.process import run_module
from asi_lab.control import Control
from asi_lab.lab import Lab


@pytest.fixture
def control(tmp_path, monkeypatch):
    """Control of a search of an hour, whose clock a test winds by `wind`."""
    now = [0.0]
    monkeypatch.setattr(clock, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def wind(seconds: float) -> None:
        now[0] += seconds

    found = Control(Lab(tmp_path), lambda text: None, hours=1.0)
    return SimpleNamespace(control=found, wind=wind)


def goes_on(control: Control) -> bool:
    return control.may_go_on(control.tick)


def test_a_search_ends_after_its_hours(control):
    for _ in range(3599):
        control.wind(1.0)
        assert goes_on(control.control)
    control.wind(1.0)
    assert not goes_on(control.control)


def test_hours_run_only_while_the_engine_does(control):
    control.wind(1.0)
    assert goes_on(control.control)
    before = control.control.until
    control.wind(100_000.0)  # Ctrl+Z, or a closed lid
    assert goes_on(control.control)
    assert control.control.until == pytest.approx(before, abs=30.0)
    for _ in range(3598):
        control.wind(1.0)
        assert goes_on(control.control)
    control.wind(1.0)
    assert not goes_on(control.control)


def test_without_hours_it_goes_on(tmp_path):
    endless = Control(Lab(tmp_path), lambda text: None, hours=None)
    assert endless.until is None
    assert goes_on(endless)


def test_the_preparation_of_data_is_looked_on():
    """So that its time counts among the hours."""
    looks: list[int] = []
    assert run_module("timeit", ["-n1", "-r1", "import time; time.sleep(1.5)"], lambda: looks.append(1))
    assert len(looks) >= 2
