"""The slots of this machine: what their pairs see, and how long these live."""

from __future__ import annotations

import threading

import psutil
import pytest

from asi_lab import sandbox
from asi_lab.config import from_preset
from asi_lab.data.manifest import MANIFEST_FILE, TRAIN_FILE
from asi_lab.engineer.executor import LocalExecutor
from asi_lab.protocol import Ready

SETTINGS = from_preset("micro", device="cpu")


@pytest.fixture
def slots(tmp_path, monkeypatch):
    """Makes executors of one lab, one for each list of GPUs."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7,GPU-1,5")
    for name in (MANIFEST_FILE, TRAIN_FILE):
        (tmp_path / name).touch()
    made: list[LocalExecutor] = []

    def make(*gpus: tuple[str, ...]) -> list[LocalExecutor]:
        confinement, waiting = sandbox.choose("auto", sandbox.probe()), tmp_path / ".waiting"
        made.extend(LocalExecutor(waiting, confinement, tmp_path, SETTINGS, own) for own in gpus)
        return made

    yield make
    for executor in made:
        executor.close()


def seen(pair) -> dict[str, set[str]]:
    """The GPUs that the processes of a pair see, by which of the two they belong to."""
    pids = {source: process.popen.pid for source, process in pair._processes.items()}
    families = {
        source: [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        for source, pid in pids.items()
    }
    return {
        source: {process.environ().get("CUDA_VISIBLE_DEVICES", "all") for process in family}
        for source, family in families.items()
    }


def ready(pair) -> None:
    """Wait until both processes have said so."""
    found: set[str] = set()
    while found != {"trial", "scorer"}:
        found |= {source for source, report in pair.poll(60) if isinstance(report, Ready)}


def test_trial_and_scorer_of_a_slot_see_its_gpus_and_no_others(slots, tmp_path):
    pairs = [executor.take() for executor in slots(("7",), ("GPU-1", "5"), ())]
    for pair, expected in zip(pairs, ("7", "GPU-1,5", "7,GPU-1,5"), strict=True):
        ready(pair)
        found = seen(pair)
        assert found["scorer"] == {expected}
        assert expected in found["trial"]
        assert found["trial"] <= {expected, "all"}  # those around it may have no environment at all
        pair.finish(tmp_path)
    assert list((tmp_path / ".waiting").iterdir()) == []


def test_a_pair_outlives_the_thread_that_had_it_prepared(slots, tmp_path):
    """Linux ends a process that asked for it with the thread that started it, not with the engine."""
    (executor,) = slots(())
    thread = threading.Thread(target=executor.prepare)
    thread.start()
    thread.join()
    pair = executor.take()
    ready(pair)
    assert pair.health().trial_exit is None
    assert pair.health().scorer_exit is None
    pair.finish(tmp_path)
