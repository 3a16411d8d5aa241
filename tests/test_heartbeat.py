"""What the engine tells of itself, and how it hears of work in other threads."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from types import SimpleNamespace

import pytest

from asi_lab.common import background
from asi_lab.engineer.slots import Slots
from asi_lab.events import Doing
from asi_lab.heartbeat import Pacemaker
from asi_lab.lab import Store, meta
from asi_lab.llm.live import LiveAnswers
from asi_lab.protocol import Progress


class View:
    """Remembers what it was shown."""

    def __init__(self) -> None:
        self.shown: list[tuple[str, str]] = []

    def refresh(self, store: Store) -> None:
        pass

    def working(self, label: str, stage: str, progress: Progress | None) -> None:
        self.shown.append((label, stage))


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "store") as opened:
        yield opened


@pytest.fixture
def control() -> SimpleNamespace:
    return SimpleNamespace(tick=lambda: None, waits=False, stop_now=False, ordered="", until=None)


@pytest.fixture
def watch(store, control) -> Pacemaker:
    return Pacemaker(store, control, View(), LiveAnswers(), 2, 8)


def failing(words: str) -> Future[object]:
    def work() -> None:
        raise OSError(words)

    return background.begin(work, "test")


def test_a_beat_says_what_is_being_done_and_what_at_the_same_time(watch, store):
    point = Progress(3, 10, 300, 4.5, 1e-3, 100.0, 7.0)
    watch.working("0001", "training", point)
    watch.working("0002", "evaluation", None)
    watch.beat("running")
    beat = meta.ENGINE.read(store)
    assert beat.doing == (Doing("0001", "training", point), Doing("0002", "evaluation"))
    assert (beat.state, beat.slots, beat.experiments) == ("running", 2, 8)
    watch.over("0001")
    watch.beat("running")
    assert [doing.label for doing in meta.ENGINE.read(store).doing] == ["0002"]
    watch.beat("stopped")
    assert meta.ENGINE.read(store).doing == ()
    assert "label" not in store.get_meta("engine")  # as earlier versions left it out


def test_what_a_trial_raises_is_raised_wherever_the_main_thread_waits(watch):
    slots = Slots([SimpleNamespace(), SimpleNamespace()], watch)

    def fail() -> None:
        raise OSError("the disk is full")

    slots.begin("0001", fail)
    never: Future[None] = Future()
    with pytest.raises(OSError, match="the disk is full"):
        background.wait(never, watch.tick)


def test_what_a_model_raises_waits_for_whoever_asked(watch):
    done = failing("no answer")
    watch.follow(done)
    with pytest.raises(OSError, match="no answer"):
        done.result(10)
    watch.tick()  # raises nothing


def test_it_is_paused_once_nothing_is_at_work(watch, store, control):
    over, control.waits = threading.Event(), True
    work = background.begin(over.wait, "test")
    watch.follow(work)
    watch.tick()
    assert meta.ENGINE.read(store).state == "running"
    over.set()
    work.result(10)
    watch.tick()
    assert meta.ENGINE.read(store).state == "paused"
