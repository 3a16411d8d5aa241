"""The zoo: every sound architecture passes, every planted fault is caught by the check meant for it."""

from __future__ import annotations

from operator import attrgetter

import pytest

from asi_lab.engineer.contract import check_source
from asi_lab.trial.preflight import examine
from tests.thinning import one_in
from tests.zoo import faulty, sound

name_of = attrgetter("name")
STATIC = {check.name for check in check_source(sound()[0].source)}


def test_the_zoo_is_large_and_its_entries_are_distinct():
    entries = [*sound(), *faulty()]
    assert len(sound()) >= 15
    assert len(faulty()) >= 25
    assert len({entry.name for entry in entries}) == len({entry.source for entry in entries}) == len(entries)
    assert all(entry.summary for entry in entries)


@pytest.mark.parametrize("entry", one_in(12, sound(), name_of))
def test_a_sound_architecture_passes_every_check(entry, exam_of):
    """In float32 and, for what depends on it, under bf16 autocast."""
    static = check_source(entry.source)
    assert all(check.passed for check in static), static
    found = [check for check, _ in examine(exam_of(entry.source, precision="bf16"))]
    assert [check.detail for check in found if not check.passed] == []
    assert len(found) == 14


@pytest.mark.parametrize("entry", one_in(8, faulty(), name_of))
def test_a_fault_is_caught_by_the_check_meant_for_it(entry, exam_of):
    static = {check.name: check for check in check_source(entry.source)}
    if entry.check in STATIC:
        assert not static[entry.check].passed
        assert static[entry.check].line == entry.line or entry.line is None
        return
    assert all(check.passed for check in static.values())
    verdicts = list(examine(exam_of(entry.source, precision="bf16"), only=entry.check))
    assert [check.name for check, _ in verdicts] == [entry.check]
    check, state = verdicts[0]
    assert not check.passed
    assert check.detail
    assert state.is_failure
