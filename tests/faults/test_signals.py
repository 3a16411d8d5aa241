"""SIGTERM, SIGHUP and Ctrl+C at every kind of work, and SIGKILL where the engine has children."""

from __future__ import annotations

import contextlib
import os
import pty
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from asi_lab.data.manifest import load_manifest
from asi_lab.data.prepare import prepare
from asi_lab.errors import StoreError
from asi_lab.lab import Lab, Store, commands

SIMULATED = Path(__file__).parents[1] / "simulated_engine.py"
INT, TERM, HUP, KILL = signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL
SIGNALS = {
    "ctrl-c": (INT,),
    "two ctrl-c": (INT, INT),
    "term": (TERM,),
    "hup": (HUP,),
    "all": (TERM, HUP, INT),
}


def signals(*fast: str):
    """Each way to end an engine, with the exit status; those that are not `fast` are for the slow tests."""
    ways = [
        pytest.param(sent, 128 + sent[-1], id=name, marks=[] if name in fast else pytest.mark.slow)
        for name, sent in SIGNALS.items()
    ]
    return pytest.mark.parametrize(("sent", "code"), ways)


class Engine:
    """An engine with simulated trials, at work on a lab."""

    def __init__(self, lab: Lab, delay: float = 0.02, experiments: int = 4, hangup=signal.SIG_DFL) -> None:
        command = [sys.executable, str(SIMULATED), str(lab.path), str(experiments), str(delay)]
        self.lab = lab
        self.process = subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, preexec_fn=lambda: signal.signal(HUP, hangup)
        )

    def wait_for(self, condition) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with contextlib.suppress(StoreError):  # the store may be just being created
                if condition():
                    return
            assert self.process.poll() is None, self.process.stderr.read()
            time.sleep(0.01)
        raise AssertionError("waited in vain")

    def has(self, kind: str, word: str = "") -> bool:
        return any(e.kind == kind and word in e.message for e in events(self.lab))

    def end(self, *signals: signal.Signals) -> tuple[int, str]:
        """Send signals, wait, and assert that no child stays behind."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        for number in signals:
            self.process.send_signal(number)
            time.sleep(0.005)
        _, said = self.process.communicate(timeout=60)
        assert "Traceback" not in said, said
        _, alive = psutil.wait_procs(children, timeout=5)
        assert alive == []
        assert self.lab.engine_pid() is None
        return self.process.returncode, said


def events(lab: Lab) -> list:
    if not lab.has_results():
        return []
    with Store.open_readonly(lab.store) as store:
        return store.events(limit=10**6)


@pytest.fixture
def lab(prepared, copy) -> Lab:
    return copy(prepared)


def results(lab: Lab) -> list[tuple]:
    """What a search found, apart from times and what follows from them."""
    with Store.open_readonly(lab.store) as store:
        return [(c.id, c.state, c.draw, c.proposal, c.loss, c.score) for c in store.candidates()]


@signals("ctrl-c")
def test_during_a_baseline(lab, engines, undisturbed, sent, code):
    engine = Engine(lab, 0.05)
    engine.wait_for((lab.trials / "delta_net-seed0").exists)
    returned, _ = engine.end(*sent)
    assert returned == code
    assert events(lab)[-1].kind == "engine_stopped"
    assert not any(e.kind == "candidate_proposed" for e in events(lab))
    engines.finish(lab)
    assert results(lab) == results(undisturbed)


@signals("hup")
def test_during_a_trial(lab, engines, undisturbed, sent, code):
    engine = Engine(lab)
    engine.wait_for(lambda: engine.has("candidate_state", "training"))
    returned, _ = engine.end(*sent)
    assert returned == code
    states = [row[1].value for row in results(lab)]
    assert states == ["done", "done" if sent == (INT,) else "training"]
    engines.finish(lab)
    assert results(lab) == results(undisturbed)


@signals("ctrl-c", "hup")
def test_while_paused(lab, engines, undisturbed, sent, code):
    engine = Engine(lab, 0.0)
    engine.wait_for(lambda: lab.engine_pid() == engine.process.pid and engine.has("engine_started"))
    commands.send(lab.commands, "pause")
    engine.wait_for(lambda: engine.has("command", "pause taken"))
    time.sleep(0.3)
    returned, _ = engine.end(*sent)
    assert returned == code
    engines.finish(lab)  # the pause went with its engine
    assert results(lab) == results(undisturbed)


@pytest.fixture
def unprepared(prepared, copy, tmp_path) -> Lab:
    """A lab whose data takes seconds to prepare."""
    lab = copy(prepared)
    shutil.rmtree(lab.data)
    rng = random.Random(0)
    words = ["".join(rng.choice("abcdefghijklmnop") for _ in range(rng.randint(2, 9))) for _ in range(9_000)]
    text = tmp_path / "much.txt"
    text.write_text("\n\n".join(" ".join(rng.choices(words, k=300)) for _ in range(700)))
    settings = lab.config.read_text().replace("bpe:300", "bpe:600")
    lab.config.write_text(settings.replace(str(lab.settings().data.source), f"text:{text}"))
    return lab


@signals("ctrl-c", "term")
def test_during_data_preparation(unprepared, sent, code):
    engine = Engine(unprepared)
    engine.wait_for((unprepared.path / ".data.partial").exists)
    returned, said = engine.end(*sent)
    assert returned == code
    assert "Cut off" in said
    assert not unprepared.data.exists()
    assert not unprepared.store.exists()


@pytest.mark.slow
def test_a_kill_during_data_preparation_leaves_no_child_and_the_same_data(unprepared, tmp_path):
    engine = Engine(unprepared)
    engine.wait_for((unprepared.path / ".data.partial").exists)
    assert engine.end(KILL)[0] == -KILL
    assert not unprepared.data.exists()
    assert Engine(unprepared, 0.0, experiments=1).end()[0] == 0
    assert not (unprepared.path / ".data.partial").exists()
    other = prepare(unprepared.settings().data, tmp_path / "other")
    assert load_manifest(unprepared.data, hashes=True) == other


@pytest.fixture
def slow_git(tmp_path, monkeypatch) -> Path:
    """A git that takes a while for a commit; the file it makes says that it is at it."""
    mark, program = tmp_path / "committing", tmp_path / "bin" / "git"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\ncase "$*" in *fast-import*) touch {mark}; sleep 0.7;; esac\n'
        f'exec {shutil.which("git")} "$@"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return mark


def committing(lab: Lab, slow_git: Path) -> Engine:
    """An engine in the middle of the commit of candidate 1."""
    engine = Engine(lab, 0.0)
    engine.wait_for(lambda: engine.has("candidate_proposed"))
    slow_git.unlink()
    engine.wait_for(slow_git.exists)
    return engine


@signals()
def test_during_a_commit(lab, engines, undisturbed, slow_git, sent, code):
    engine = committing(lab, slow_git)
    returned, _ = engine.end(*sent)
    assert returned == code
    assert [(e.candidate, e.message[11:]) for e in events(lab) if e.kind == "commit"][1:] == [
        (1, results(undisturbed)[1][3].name)
    ]
    engines.finish(lab)
    assert results(lab) == results(undisturbed)


def test_a_git_that_outlives_its_killed_engine_holds_the_lab(lab, engines, undisturbed, slow_git):
    engine = committing(lab, slow_git)
    engine.process.kill()
    engine.process.communicate()
    second = engines.run(lab)
    assert second.code == 3
    assert f"process {engine.process.pid}" in second.said
    deadline = time.monotonic() + 30
    while lab.engine_pid() is not None and time.monotonic() < deadline:
        time.sleep(0.05)
    engines.finish(lab)
    assert results(lab) == results(undisturbed)


@pytest.mark.slow
def test_under_nohup_a_hangup_is_nothing(lab, undisturbed):
    engine = Engine(lab, hangup=signal.SIG_IGN)
    engine.wait_for(lambda: engine.has("candidate_state", "training"))
    assert engine.end(HUP)[0] == 0
    assert results(lab) == results(undisturbed)


ON_TERMINAL = """
import signal, sys
signal.signal(signal.SIGHUP, signal.SIG_IGN if {stays} else signal.SIG_DFL)
sys.path.insert(0, {tests!r})
import simulated_engine
from asi_lab import cli
from asi_lab.cli import headless
from asi_lab.engine import Engine
headless.Engine = lambda lab, view: Engine(lab, view, simulated_engine.SimulatedExecutor(0.01))
cli.main()
"""


@pytest.mark.parametrize(
    ("stays", "code"),
    [
        pytest.param(False, 128 + HUP, id="hup", marks=pytest.mark.slow),
        pytest.param(True, 0, id="nohup"),
    ],
)
def test_a_terminal_that_goes_away(lab, engines, undisturbed, stays, code):
    """The whole program on a terminal that is closed: without nohup it ends, with it the search goes on."""
    program = ON_TERMINAL.format(stays=stays, tests=str(SIMULATED.parent))
    command = [sys.executable, "-c", program, "--lab", str(lab.path), "--no-tui", "--experiments", "4"]
    child, terminal = pty.fork()
    if child == 0:
        os.execvpe(command[0], command, {**os.environ, "TERM": "xterm"})
    shown = b""
    while b"0001" not in shown:
        shown += os.read(terminal, 65536)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == code
    assert "engine_stopped" in {event.kind for event in events(lab)[-2:]}
    engines.finish(lab)
    assert results(lab) == results(undisturbed)


@pytest.mark.parametrize(
    "output",
    [
        "2>/dev/full >/dev/full",
        pytest.param("2>&- >&-", marks=pytest.mark.slow),
        pytest.param("<&- 2>&- >&-", marks=pytest.mark.slow),
        "2>&1 | head -2",
    ],
)
def test_a_search_goes_on_where_nothing_can_be_printed(lab, undisturbed, output):
    program = ON_TERMINAL.format(stays=True, tests=str(SIMULATED.parent))
    command = [sys.executable, "-c", program, "--lab", str(lab.path), "--no-tui", "--experiments", "4"]
    line = f"set -o pipefail; {shlex.join(command)} {output}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert results(lab) == results(undisturbed)
    [told] = [event.message for event in events(lab) if event.message.startswith("nothing is printed")]
    assert told.endswith("the search goes on")


@pytest.mark.slow
@pytest.mark.parametrize("number", [INT, TERM, HUP, KILL])
def test_no_real_trial_outlives_its_engine(lab, number):
    """The whole program with real trials and scorers, at work and waiting."""
    command = [sys.executable, "-m", "asi_lab", "--lab", str(lab.path), "--no-tui", "--experiments", "1"]
    engine = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(HUP, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while not list(lab.trials.glob("*/architecture.py")) and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(1)
    children = psutil.Process(engine.pid).children(recursive=True)
    assert len(children) >= 2, "a trial and a scorer at least"
    for _ in range(2 if number == INT else 1):
        engine.send_signal(number)
        time.sleep(0.2)
    _, said = engine.communicate(timeout=60)
    assert engine.returncode == (-KILL if number == KILL else 128 + number)
    assert "Traceback" not in said, said
    assert psutil.wait_procs(children, timeout=20)[1] == []
    assert lab.engine_pid() is None
