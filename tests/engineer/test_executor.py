"""The slots of this machine: what their trios see, and how long these live."""

from __future__ import annotations

import select
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from asi_lab import sandbox
from asi_lab.data.manifest import MANIFEST_FILE, TRAIN_FILE
from asi_lab.engineer.executor import LocalExecutor, LocalTrio
from asi_lab.lab.config import from_preset
from asi_lab.protocol import Ready
from asi_lab.sandbox import Level, Policy, Sandbox
from tests.engineer import scripts
from tests.thinning import one_in

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


def seen(trio) -> dict[str, set[str]]:
    """The GPUs that the processes of a trio see, by which of the three they belong to."""
    pids = {source: process.popen.pid for source, process in trio._processes.items()}
    families = {
        source: [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        for source, pid in pids.items()
    }
    return {source: set().union(*map(seen_by, family)) for source, family in families.items()}


def seen_by(process: psutil.Process) -> set[str]:
    try:
        return {process.environ().get("CUDA_VISIBLE_DEVICES", "all")}
    except psutil.AccessDenied:  # a guard, into which nobody looks
        return set()


def ready(trio) -> None:
    """Wait until all three processes have said so."""
    found: set[str] = set()
    while found != {"trial", "server", "scorer"}:
        found |= {source for source, report in trio.poll(60) if isinstance(report, Ready)}


@pytest.mark.slow
def test_the_processes_of_a_slot_see_its_gpus_and_no_others(slots, tmp_path):
    trios = [executor.take() for executor in slots(("7",), ("GPU-1", "5"), ())]
    for trio, expected in zip(trios, ("7", "GPU-1,5", "7,GPU-1,5"), strict=True):
        ready(trio)
        found = seen(trio)
        assert found["scorer"] == {expected}
        for worker in ("trial", "server"):
            assert expected in found[worker]
            assert found[worker] <= {expected, "all"}  # those around it may have no environment at all
        trio.finish(tmp_path)
    assert list((tmp_path / ".waiting").iterdir()) == []


def test_a_trio_outlives_the_thread_that_had_it_prepared(slots, tmp_path):
    """Linux ends a process that asked for it with the thread that started it, not with the engine."""
    (executor,) = slots(())
    thread = threading.Thread(target=executor.prepare)
    thread.start()
    thread.join()
    trio = executor.take()
    ready(trio)
    assert trio.health().exit is None
    assert trio.health().scorer_exit is None
    trio.finish(tmp_path)


def until(condition, seconds: float = 20.0):
    """What a condition returns once that is anything, or the last of it."""
    deadline = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


@pytest.mark.parametrize("module", one_in(3, ["asi_lab.trial", "asi_lab.trial.server", "asi_lab.scorer"]))
def test_who_is_killed_while_it_waits_is_replaced(module, slots, tmp_path):
    def running() -> list[psutil.Process]:
        return scripts.running(module)

    (executor,) = slots(())
    executor.prepare()
    (victim,) = until(running)
    victim.kill()
    assert until(lambda: not executor._waiting.is_whole())  # its guards end after it
    trio = executor.take()
    assert trio.is_whole()
    ready(trio)
    trio.finish(tmp_path)
    assert list((tmp_path / ".waiting").iterdir()) == []


ENGINE = """
import sys, time
from pathlib import Path
from asi_lab.engineer.executor import LocalTrio
from asi_lab.sandbox import Level, Policy, Sandbox
folder, level = Path(sys.argv[1]), Level(sys.argv[2])
program = (sys.executable, "-S", "-c", sys.argv[3])
trio = LocalTrio(folder, Sandbox(level), Policy(""), programs={"trial": program, "server": program})
print("started", flush=True)
time.sleep(1000)
"""
WORKER = """
import os, time
if os.fork() == 0:
    os.setsid()
    print("away", flush=True)
time.sleep(1000)
"""
USER = """
import os, time
if os.fork() == 0:
    while time.process_time() < 0.3:
        pass
    os._exit(0)
os.wait()
deleted = open("big", "wb")
deleted.write(b"x" * 2**24)
deleted.flush()
os.unlink("big")
alone = os.getpid() < 9  # in a namespace of its own
open("/dev/shm/big" if alone else "big", "wb").write(b"x" * 2**24)
print("done", flush=True)
time.sleep(1000)
"""
HELD_HERE = [finding.level for finding in sandbox.probe() if finding.holds]


@pytest.mark.parametrize("level", HELD_HERE)
@pytest.mark.parametrize("when", ["at once", "at work"])
def test_nothing_outlives_an_engine_that_is_killed(level: Level, when: str, tmp_path: Path):
    """Neither before Python runs in the children nor later, when a trial has left its group."""
    folder = tmp_path / "slot"
    folder.mkdir()
    command = [sys.executable, "-c", ENGINE, str(folder), level.value, WORKER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as engine:
        assert engine.stdout is not None
        assert engine.stdout.readline() == "started\n"
        while when == "at work" and "away" not in (folder / "trial.log").read_text():
            time.sleep(0.05)
        started = psutil.Process(engine.pid).children(recursive=True)
        assert len(started) >= 3
        engine.kill()
    psutil.wait_procs(started, timeout=10)
    left = [process for process in psutil.process_iter(["cmdline"]) if str(folder) in str(process.info)]
    assert [process for process in (*started, *left) if process.is_running()] == []


@pytest.mark.parametrize("level", HELD_HERE)
def test_what_a_trial_uses_is_seen_through_its_guards(level: Level, tmp_path: Path):
    trio = LocalTrio(
        tmp_path,
        Sandbox(level),
        Policy(""),
        scored=False,
        programs={"trial": (sys.executable, "-S", "-c", USER)},
    )
    while "done" not in trio.said("trial"):
        time.sleep(0.05)
    health = trio.health()
    assert health.exit is None
    assert health.cpu_seconds >= 0.25
    assert 2**25 <= health.written_bytes < 2**25 + 2**20
    assert 2**20 < health.resident_bytes < 2**28
    assert 1 <= health.processes <= 4
    trio.start(scripts.job(), None, {})
    assert trio.cpu_seconds() < 0.1  # what it took before its job, such as imports, does not count
    trio.kill()
    assert trio.cpu_seconds() >= 0.0


SAYS_ALIVE = """
import os, sys
write = lambda kind: os.write(int(sys.argv[2]), b'{"type": "%s"}\\n' % kind)
write(b"ready")
sys.stdin.readline()
write(b"alive")
sys.stdin.readline()
"""


def test_what_the_scorer_said_first_counts_first(tmp_path):
    """Whatever the order in which the kernel tells of two pipes: that of the trial had something before."""
    program = (sys.executable, "-c", SAYS_ALIVE)
    trio = LocalTrio(tmp_path, Sandbox(Level.LIMITS), Policy(""), programs={"trial": program})
    try:
        assert ("trial", Ready()) in trio.poll(60)
        trial, scorer = trio._processes["trial"], trio._processes["scorer"]
        assert select.select([scorer.report_fd], [], [], 60)[0]
        assert trial.popen.stdin is not None
        trial.popen.stdin.write(b"\n")
        trial.popen.stdin.flush()
        assert select.select([trial.report_fd], [], [], 60)[0]
        assert [source for source, _ in trio.poll(0) if source != "server"] == ["scorer", "trial"]
    finally:
        trio.kill()
