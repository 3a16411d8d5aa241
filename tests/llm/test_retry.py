from __future__ import annotations

import itertools
import random
import threading

import pytest

from asi_lab.llm import (
    Busy,
    Call,
    Cancelled,
    Message,
    ModelError,
    NoTools,
    NotReady,
    Reply,
    Unreachable,
)
from asi_lab.llm.retry import Patient
from asi_lab.llm.scripted import Scripted

ASK = [Message("user", "Hi")]


class Highest(random.Random):
    """Draws the upper end of a range."""

    def uniform(self, a: float, b: float) -> float:
        return b


class Clock:
    """Sleeps in no time and remembers for how long it was asked to."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    def __call__(self, event: threading.Event, seconds: float) -> bool:
        self.waits.append(seconds)
        return event.is_set()

    def still(self) -> float:
        """The time, which stands still."""
        return 0.0


def test_the_first_answer_is_passed_on() -> None:
    inner, clock = Scripted([Reply("yes")], name="ollama:m"), Clock()
    model, call = Patient(inner, sleep=clock), Call(temperature=0.1)
    assert model.complete(ASK, call) == Reply("yes")
    assert model.name == "ollama:m"
    assert inner.requests[0].call is call
    assert inner.requests[0].messages == tuple(ASK)
    assert clock.waits == []


def test_waits_double_up_to_the_cap() -> None:
    clock = Clock()
    inner = Scripted([*(Busy("full") for _ in range(9)), Reply("yes")])
    assert Patient(inner, attempts=10, sleep=clock, rng=Highest()).complete(ASK, Call()) == Reply("yes")
    assert clock.waits == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]


def test_waits_are_drawn_from_nothing_up() -> None:
    clock = Clock()
    inner = Scripted([*(Busy("full") for _ in range(199)), Reply("yes")])
    Patient(inner, attempts=200, sleep=clock, rng=random.Random(1)).complete(ASK, Call())
    late = clock.waits[10:]
    assert 0.0 <= min(late) < 3.0
    assert 57.0 < max(late) <= 60.0


def test_the_server_says_how_long() -> None:
    clock = Clock()
    inner = Scripted([Busy("full", 90.0), Busy("full", 7200.0), Busy("full", 0.0), Reply("yes")])
    Patient(inner, sleep=clock, rng=Highest()).complete(ASK, Call())
    assert clock.waits == [90.0, 600.0, 4.0]


def test_it_gives_up_after_the_last_attempt() -> None:
    clock = Clock()
    inner = Scripted([Busy(f"full {n}") for n in range(1, 8)])
    with pytest.raises(ModelError) as fault:
        Patient(inner, sleep=clock).complete(ASK, Call())
    assert str(fault.value) == "full 6. Tried 6 times; start again when the server answers."
    assert type(fault.value) is ModelError
    assert len(inner.requests) == 6
    assert len(clock.waits) == 5


def test_one_attempt_waits_for_nothing() -> None:
    clock = Clock()
    with pytest.raises(ModelError, match=r"^full\. Tried once; "):
        Patient(Scripted([Busy("full")]), attempts=1, sleep=clock).complete(ASK, Call())
    assert clock.waits == []
    with pytest.raises(ValueError, match="at least 1, not 0"):
        Patient(Scripted([]), attempts=0)


def test_each_wait_is_told() -> None:
    told: list[str] = []
    inner = Scripted([Busy("full", 12.5), Busy("away"), Reply("yes")])
    Patient(inner, attempts=3, told=told.append, sleep=Clock(), rng=Highest()).complete(ASK, Call())
    assert told == [
        "full; trying again in 12.5 s (attempt 2 of 3)",
        "away; trying again in 2.0 s (attempt 3 of 3)",
    ]


@pytest.mark.parametrize("fault", [ModelError("missing"), NoTools("none"), Cancelled("stop"), KeyError("x")])
def test_other_faults_are_not_tried_again(fault: Exception) -> None:
    inner, clock = Scripted([fault, Reply("yes")]), Clock()
    with pytest.raises(type(fault)) as raised:
        Patient(inner, sleep=clock).complete(ASK, Call())
    assert raised.value is fault
    assert clock.waits == []


def test_cancelling_ends_a_wait_at_once() -> None:
    inner, call = Scripted([Busy("full", 10_000.0), Reply("yes")]), Call()
    threading.Timer(0.1, call.cancelled.set).start()
    with pytest.raises(Cancelled):
        Patient(inner).complete(ASK, call)
    assert len(inner.requests) == 1


def test_a_server_that_loads_is_waited_for_as_long_as_it_might_be_silent() -> None:
    clock, told = Clock(), list[str]()
    inner = Scripted([*(NotReady("loading") for _ in range(9)), Reply("yes")])
    model = Patient(inner, attempts=2, told=told.append, sleep=clock, now=clock.still, rng=Highest())
    assert model.complete(ASK, Call(timeout=300.0)) == Reply("yes")
    assert clock.waits == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
    assert told[0] == "loading; trying again in 1.0 s (for up to 300 s more)"
    assert told[-1] == "loading; trying again in 60.0 s (for up to 117 s more)"


def test_a_server_that_loads_for_ever_is_given_up() -> None:
    clock, inner = Clock(), Scripted([NotReady("loading", after=20.0) for _ in range(9)])
    with pytest.raises(ModelError) as fault:
        Patient(inner, sleep=clock, now=clock.still).complete(ASK, Call(timeout=50.0))
    assert str(fault.value) == "loading. Waited 50 s for it; start again when the server answers."
    assert type(fault.value) is ModelError
    assert clock.waits == [20.0, 20.0, 10.0]


def test_a_server_that_was_never_there_is_not_waited_for() -> None:
    clock, inner = Clock(), Scripted([Unreachable("gone") for _ in range(9)])
    with pytest.raises(ModelError, match=r"^gone\. Tried 3 times; "):
        Patient(inner, attempts=3, sleep=clock).complete(ASK, Call(timeout=1e9))


def test_a_server_that_goes_away_is_waited_for() -> None:
    clock = Clock()
    inner = Scripted([Reply("one"), *(Unreachable("gone") for _ in range(9)), Reply("two")])
    model = Patient(inner, attempts=2, sleep=clock, now=clock.still, rng=Highest())
    assert model.complete(ASK, Call()) == Reply("one")
    assert model.complete(ASK, Call(timeout=300.0)) == Reply("two")
    assert len(clock.waits) == 9


def test_waiting_for_a_server_uses_up_no_attempts() -> None:
    clock, inner = Clock(), Scripted([NotReady("loading"), Busy("full"), NotReady("loading"), Reply("yes")])
    assert Patient(inner, attempts=2, sleep=clock).complete(ASK, Call()) == Reply("yes")


def test_calls_that_take_long_to_say_so_count_too() -> None:
    clock, inner, times = (
        Clock(),
        Scripted([NotReady("loading") for _ in range(99)]),
        itertools.count(0.0, 30.0),
    )
    with pytest.raises(ModelError, match=r"^loading\. Waited 300 s for it"):
        Patient(inner, sleep=clock, now=lambda: next(times)).complete(ASK, Call(timeout=300.0))
    assert 30.0 * len(inner.requests) + sum(clock.waits) == pytest.approx(300.0, abs=31.0)
