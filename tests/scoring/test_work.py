"""Whether a count of work is believed: what processor seconds can rule out, and what they cannot."""

from __future__ import annotations

import pytest

from asi_lab.records import Evidence, Training, Work
from asi_lab.scoring.baselines import Anchor
from asi_lab.scoring.work import believed, is_contradicted

LOWER = Anchor(4.0, 1000, Work(1e6, 1e5), 10.0)


def evidence(share: float, cpu: float) -> Evidence:
    """Counted at that share of DeltaNet's work, and that many processor seconds."""
    training = Training(1000, 500, 1, 1, 4.0, 1.0, 100.0, 1.0, cpu_seconds=cpu)
    return Evidence(training=training, work=Work(1e6 * share, 1e5 * share))


@pytest.mark.parametrize(
    ("share", "cpu", "contradicted"),
    [
        (1.0, 10.0, False),
        (1.0, 29.9, False),
        (1.0, 30.1, True),
        (0.1, 2.9, False),
        (0.1, 10.0, True),  # says that it does a tenth of the work, and takes as long
        (5.0, 140.0, False),  # dear, and says so
        (5.0, 1.0, False),  # seconds cannot show that somebody counts too much
        (1.0, 0.0, False),  # nothing was measured
        (1e-206, 10.0, True),  # so little that its square is nothing
    ],
)
def test_a_count_is_ruled_out_by_three_times_its_processor_seconds(share, cpu, contradicted):
    found = evidence(share, cpu)
    assert is_contradicted(found, LOWER) is contradicted
    assert believed(found, LOWER) == (None if contradicted else found.work)


@pytest.mark.parametrize("weather", [0.5, 0.7, 1.5, 2.0])
def test_a_busy_neighbour_changes_no_verdict_on_an_honest_count(weather):
    """Honest counts foretell processor seconds to within 0.9 and 1.3 (docs/benchmarks.md)."""
    for honest in (0.9, 1.0, 1.3):
        for share in (0.5, 1.0, 3.0):
            assert not is_contradicted(evidence(share, 10.0 * share * honest * weather), LOWER)


def test_what_was_not_counted_is_nobodys_lie():
    assert believed(Evidence(), LOWER) is None
    assert not is_contradicted(Evidence(), LOWER)
    found = evidence(0.01, 100.0)
    assert not is_contradicted(found, Anchor(4.0, 1000))
    assert not is_contradicted(found, Anchor(4.0, 1000, LOWER.work))
