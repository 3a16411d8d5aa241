"""The engine's clock stands still while nobody looks at it."""

from types import SimpleNamespace

import pytest

from asi_lab.common import clock
from asi_lab.common.clock import LONGEST_GAP, Clock


@pytest.fixture
def looks(monkeypatch):
    """Looks at a clock at given moments; returns what it says each time."""

    def look(*moments: float) -> list[float]:
        times = iter([0.0, *moments])
        monkeypatch.setattr(clock, "time", SimpleNamespace(monotonic=lambda: next(times)))
        watched = Clock()
        return [watched.now() for _ in moments]

    return look


def test_it_counts_while_it_is_looked_at(looks):
    assert looks(0.5, 1.0, 3.0) == [0.5, 1.0, 3.0]


def test_an_absence_counts_for_nothing_however_often_and_long(looks):
    assert looks(1.0, 141.0, 142.0) == [1.0, 1.0, 2.0]
    assert looks(100.0, 101.0, 10_101.0, 10_102.0, 20_000.0) == [0.0, 1.0, 1.0, 2.0, 2.0]


def test_a_gap_of_just_so_long_counts(looks):
    assert looks(LONGEST_GAP, 2 * LONGEST_GAP + 0.01) == [LONGEST_GAP, LONGEST_GAP]
