"""The terminal lab in a real terminal: tmux plays it, a simulated engine searches beside it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from asi_lab.lab import Lab
from tests import simulated_engine

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed here")
ROOT = Path(__file__).parents[2]


class Terminal:
    """A tmux session of a given size with a shell in it."""

    def __init__(self, width: int, height: int, state: Path, shell: str = "sh") -> None:
        self.name = f"asi-{uuid.uuid4().hex[:8]}"
        size = ["-x", str(width), "-y", str(height)]
        environment = [part for n in ("STATE", "CONFIG", "CACHE") for part in ("-e", f"XDG_{n}_HOME={state}")]
        self._tmux("new-session", "-d", "-s", self.name, *size, *environment, "-c", str(ROOT), shell)

    def _tmux(self, *arguments: str) -> str:
        command = ["tmux", "-L", self.name, "-f", "/dev/null", *arguments]  # a server of its own
        environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        return done.stdout

    def run(self, *command: str) -> None:
        """Type a command."""
        self._tmux("send-keys", "-t", self.name, "-l", " ".join(command))
        self.press("Enter")

    def press(self, *keys: str) -> None:
        """Press keys."""
        self._tmux("send-keys", "-t", self.name, *keys)

    def type(self, text: str) -> None:
        """Type a text as fast as it goes."""
        self._tmux("send-keys", "-t", self.name, "-l", text.replace("\n", "\r"))

    def resize(self, width: int, height: int) -> None:
        """Give the terminal another size."""
        self._tmux("resize-window", "-t", self.name, "-x", str(width), "-y", str(height))

    @property
    def screen(self) -> str:
        """What is seen."""
        return self._tmux("capture-pane", "-p", "-t", self.name)

    @property
    def is_restored(self) -> bool:
        """Whether the terminal shows its own screen again, with a cursor."""
        flags = self._tmux("display-message", "-p", "-t", self.name, "#{alternate_on} #{cursor_flag}")
        return flags.split() == ["0", "1"]

    def until(self, true: Callable[[], object], seconds: float = 30.0) -> None:
        """Wait for something to come true."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if true():
                return
            time.sleep(0.1)
        raise AssertionError(f"it did not come true; seen is\n{self.screen}")

    def close(self) -> None:
        """End the session."""
        subprocess.run(["tmux", "-L", self.name, "kill-server"], capture_output=True, check=False)


@pytest.fixture
def terminal(tmp_path) -> Iterator[Terminal]:
    opened = Terminal(100, 30, tmp_path / "state")
    yield opened
    opened.close()


@pytest.fixture
def lab(tmp_path) -> Lab:
    return simulated_engine.make_lab(tmp_path, "[baselines]\nseeds = 2\nmax_seeds = 2\n", seed=1)


@pytest.fixture
def engine(lab) -> Iterator[subprocess.Popen]:
    """A search at work that would go on for long."""
    command = [sys.executable, "tests/simulated_engine.py", str(lab.path), "500", "0.05"]
    path = {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | path, stderr=subprocess.DEVNULL)
    yield process
    process.kill()
    process.wait()


def viewer_of(lab: Lab) -> psutil.Process:
    words = ["-m", "asi_lab", "--lab", str(lab.path)]
    running = psutil.process_iter(["cmdline", "ppid"])
    found = {p.pid: p for p in running if (p.info["cmdline"] or [])[1:5] == words}
    # A child has the command line of its parent until it runs a program of its own.
    (viewer,) = [p for p in found.values() if p.info["ppid"] not in found]
    return viewer


def opened(terminal: Terminal, lab: Lab, *options: str) -> None:
    terminal.run(sys.executable, "-m", "asi_lab", "--lab", str(lab.path), *options)
    terminal.until(lambda: "1 over" in terminal.screen)


def test_watch_steer_leave_and_come_back(terminal, lab, engine):
    opened(terminal, lab)
    terminal.until(lambda: "▶ running" in terminal.screen)
    terminal.press("2")
    terminal.until(lambda: "0002" in terminal.screen)
    terminal.press("p")
    terminal.until(lambda: "⏸ paused" in terminal.screen)
    terminal.press("p")
    terminal.until(lambda: "▶ running" in terminal.screen)
    terminal.press("q")
    terminal.until(lambda: terminal.is_restored)
    assert "overview" not in terminal.screen
    assert engine.poll() is None  # the search goes on
    opened(terminal, lab, "--readonly")
    terminal.until(lambda: "read-only" in terminal.screen)
    terminal.press("?")
    time.sleep(2.5)  # polls go on behind a dialog
    terminal.press("Escape")
    time.sleep(1.0)  # or it would be read as Alt and x
    terminal.press("x")
    terminal.until(lambda: "This view is read-only." in terminal.screen)
    assert engine.poll() is None


@pytest.mark.skipif(shutil.which("less") is None, reason="less is not installed here")
def test_code_is_opened_in_the_pager_and_the_view_comes_back(terminal, lab, engine):
    terminal.run("export", "EDITOR=less")
    opened(terminal, lab)
    terminal.until(lambda: "best 0" in terminal.screen)
    terminal.press("o")
    terminal.until(lambda: "architecture.py" in terminal.screen or "DeltaNet (arXiv" in terminal.screen)
    terminal.press("q")
    terminal.until(lambda: "1 over" in terminal.screen)
    terminal.press("q")
    terminal.until(lambda: terminal.is_restored)


def test_an_engine_that_is_killed_is_lost_contact(terminal, lab, engine):
    opened(terminal, lab)
    terminal.until(lambda: "▶ running" in terminal.screen)
    engine.kill()
    engine.wait()
    terminal.until(lambda: "✗ lost contact" in terminal.screen)
    terminal.press("q")
    terminal.until(lambda: terminal.is_restored)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_the_terminal_as_it_was(terminal, lab, engine, number):
    opened(terminal, lab)
    viewer_of(lab).send_signal(number)
    terminal.until(lambda: terminal.is_restored)
    terminal.run("echo", "status", "$?")
    terminal.until(lambda: f"status {128 + number}" in terminal.screen)


@pytest.mark.parametrize("attempt", range(3))
def test_a_viewer_whose_terminal_is_gone_ends_and_the_search_goes_on(terminal, lab, engine, attempt):
    opened(terminal, lab)
    viewer = viewer_of(lab)
    terminal.close()
    viewer.wait(15)
    assert engine.poll() is None


def test_it_goes_to_the_background_and_comes_back(tmp_path, lab, engine):
    terminal = Terminal(100, 30, tmp_path / "state", shell="bash --norc")
    try:
        opened(terminal, lab)
        terminal.until(lambda: "▶ running" in terminal.screen)
        terminal.press("C-z")
        terminal.until(lambda: terminal.is_restored and "Stopped" in terminal.screen)
        terminal.run("fg")
        terminal.until(lambda: "1 over" in terminal.screen and "▶ running" in terminal.screen)
        terminal.press("2")
        terminal.until(lambda: "judge" in terminal.screen)
        terminal.press("q")
        terminal.until(lambda: terminal.is_restored)
        assert engine.poll() is None
    finally:
        terminal.close()


def test_another_size_is_fitted_to(terminal, lab, engine):
    opened(terminal, lab)
    terminal.until(lambda: "best 0" in terminal.screen)
    for width, height, words in ((160, 45, "held-out loss by candidate"), (50, 12, "asi-lab needs 60x15")):
        terminal.resize(width, height)
        terminal.until(lambda words=words: words in terminal.screen)
    terminal.resize(80, 24)
    terminal.until(lambda: "1 over" in terminal.screen and "held-out loss by" not in terminal.screen)
    terminal.press("q")
    terminal.until(lambda: terminal.is_restored)


def test_a_lab_that_is_deleted_is_told_and_the_terminal_left_clean(terminal, lab, engine):
    opened(terminal, lab)
    terminal.until(lambda: "best 0" in terminal.screen)
    engine.kill()
    engine.wait()
    shutil.rmtree(lab.path)
    terminal.until(lambda: "The lab is gone" in terminal.screen)
    for key in "12345678":
        terminal.press(key)
    terminal.press("q")
    terminal.until(lambda: terminal.is_restored)
    assert "Traceback" not in terminal.screen


def test_what_happened_meanwhile_is_told_on_coming_back(terminal, lab, engine, tmp_path):
    opened(terminal, lab)
    terminal.until(lambda: "best 0" in terminal.screen)
    terminal.press("q")
    terminal.until(lambda: "The search goes on. Come back with: " in terminal.screen)
    file = tmp_path / "state" / "asi-lab" / "tui.json"
    memory = json.loads(file.read_text())
    memory["seen"] = {path: when - 3600 for path, when in memory["seen"].items()}  # it was an hour ago
    file.write_text(json.dumps(memory))
    opened(terminal, lab)
    terminal.until(lambda: "tried, " in terminal.screen and " scored, " in terminal.screen)
    terminal.press("q")
    terminal.until(lambda: terminal.is_restored)


def test_orders_are_typed(terminal, lab, engine):
    opened(terminal, lab)
    terminal.until(lambda: "best 0" in terminal.screen)
    terminal.type(":tag promising\n")  # faster than a person could
    terminal.until(lambda: "tagged: promising" in terminal.screen)
    terminal.type(":2\n")

    def is_seen() -> bool:
        terminal.press("2")  # as often as it takes: the first may come before the line has closed
        return "#promising" in terminal.screen

    terminal.until(is_seen)
    terminal.press("q")
    terminal.until(lambda: terminal.is_restored)


def test_the_demo_is_there_within_seconds(terminal):
    terminal.run(sys.executable, "-m", "asi_lab", "demo")
    terminal.until(lambda: "recorded" in terminal.screen and "of 64 candidates" in terminal.screen, 10)
    terminal.press("C-Right", "C-Right", "C-Right", "C-Right")
    terminal.until(lambda: "best 00" in terminal.screen)
    terminal.press("q")
    terminal.until(lambda: terminal.is_restored)
    terminal.until(lambda: "Come back with: " in terminal.screen)


def test_without_a_terminal_it_ends_at_once_and_names_the_other_way(lab):
    done = subprocess.run(
        [sys.executable, "-m", "asi_lab", "--lab", str(lab.path)],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 2
    assert "--no-tui" in done.stderr
