"""How much of the trial time the claims take beside a search."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from asi_lab.engineer.ladder import Ladder


@dataclass
class Verifier:
    """Has so many runs to begin; each takes as long as `slots` says once it has ended."""

    slots: SimpleNamespace
    left: int
    is_of_use: bool = True
    names: list[str] = field(default_factory=list)
    promoted: list[bool] = field(default_factory=list)

    @property
    def took(self) -> list[float | None]:
        return [self.slots.seconds.get(name) for name in self.names]

    def promote(self, candidates, count, *, by_lot):
        assert (candidates, count) == ((), 1)
        self.promoted.append(by_lot)

    def begin(self, may_go_on) -> bool:
        if not self.left:
            return False
        self.left -= 1
        self.names.append(f"{id(self)}-{len(self.names)}")
        return True


def test_claims_come_to_their_share_of_the_time_whatever_runs_take():
    slots = SimpleNamespace(seconds={})
    verifier = Verifier(slots, 10_000)
    ladder = Ladder([verifier], slots, 0.2, 5)
    for number in range(400):
        slots.seconds[f"{number:04d}"] = 20.0 + number % 7
        while ladder.begin(lambda: True):
            slots.seconds[verifier.names[-1]] = 31.0
    claims = sum(verifier.took)
    assert claims / sum(slots.seconds.values()) == pytest.approx(0.2, abs=0.01)
    assert not any(verifier.promoted)


def test_runs_that_go_on_count_so_that_claims_do_not_take_all_slots():
    slots = SimpleNamespace(seconds={"0001": 100.0})
    verifier = Verifier(slots, 100)
    ladder = Ladder([verifier], slots, 0.5, 5)
    assert ladder.begin(lambda: True)
    assert not ladder.begin(lambda: True)  # how long one takes is not known yet
    slots.seconds[verifier.names[0]] = 30.0
    begun = sum(ladder.begin(lambda: True) for _ in range(20))
    assert begun == 2  # 30 and two of 30 that go on are under half of 130, a third would not be


def test_nothing_is_begun_before_the_search_or_without_verifiers():
    slots = SimpleNamespace(seconds={})
    assert not Ladder([Verifier(slots, 3)], slots, 0.5, 5).begin(lambda: True)
    slots.seconds["0001"] = 1.0
    assert not Ladder([], slots, 0.5, 5).begin(lambda: True)


def test_the_next_scale_has_its_turn_where_nothing_is_due_at_the_one_before():
    slots = SimpleNamespace(seconds={"0001": 100.0})
    first, second, third = Verifier(slots, 0), Verifier(slots, 5, is_of_use=False), Verifier(slots, 5)
    assert Ladder([first, second, third], slots, 0.5, 5).begin(lambda: True)
    assert (first.promoted, second.promoted, third.promoted) == ([False], [], [False])
    assert (second.names, len(third.names)) == ([], 1)
