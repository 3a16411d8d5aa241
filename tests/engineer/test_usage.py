"""Processor time of a tree that hides its children, and files that have no name any more."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from asi_lab.engineer.usage import Tree

SPENT = 0.3
PRELUDE = f"""
import ctypes, mmap, os, signal, sys, time
def spend():
    while time.process_time() < {SPENT}:
        pass
def pause():
    print("here", flush=True)
    sys.stdin.readline()
"""

Start = Callable[[str], tuple[Tree, Callable[[], None]]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Run code up to its first `pause`; returns its tree, and what lets it go on to the next."""
    running: list[subprocess.Popen[str]] = []

    def go(code: str) -> tuple[Tree, Callable[[], None]]:
        process = subprocess.Popen(
            [sys.executable, "-S", "-c", PRELUDE + code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
        )
        running.append(process)
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout
        assert stdout.readline() == "here\n"

        def on() -> None:
            stdin.write("\n")
            stdin.flush()
            assert stdout.readline() == "here\n"

        return Tree(process.pid, tmp_path), on

    yield go
    for process in running:
        process.kill()
        process.communicate()


def test_time_of_children_that_were_waited_for_counts(start):
    tree, _ = start("child = os.fork()\nif child == 0:\n    spend()\n    os._exit(0)\nos.wait()\npause()\n")
    assert tree.look().cpu_seconds >= SPENT - 0.05
    assert tree.look().tasks == 1


def test_time_of_children_that_nobody_waits_for_is_kept(start):
    """Where a parent ignores that its children end, the kernel forgets what they took."""
    code = (
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\nchild = os.fork()\n"
        "if child == 0:\n    spend()\n    pause()\n    os._exit(0)\n"
        "try:\n    os.waitpid(child, 0)\nexcept ChildProcessError:\n    pause()\n"
    )
    tree, on = start(code)
    before = tree.look()
    assert before.tasks == 2
    on()
    after = tree.look()
    assert after.tasks == 1
    assert SPENT - 0.05 <= before.cpu_seconds <= after.cpu_seconds < before.cpu_seconds + SPENT


def test_time_is_known_after_the_end(start):
    tree, _ = start("spend()\npause()\nspend()\n")
    found = tree.look()
    tree._root.kill()
    tree._root.wait(10)
    after = tree.look()
    assert after.cpu_seconds == found.cpu_seconds >= SPENT - 0.05
    assert (after.resident_bytes, after.tasks, after.nameless_bytes) == (0, 0, 0)


MEGABYTE = 2**20


@pytest.mark.parametrize(
    ("code", "on_disk", "in_memory"),
    [
        ("file = open('big', 'wb'); file.write(b'x' * 2**24); file.flush(); pause()\n", 0, 0),
        (
            "file = open('big', 'wb'); file.write(b'x' * 2**24); file.flush(); os.unlink('big'); pause()\n",
            16,
            0,
        ),
        (
            "file = open('big', 'w+b'); file.write(b'x' * 2**24); file.flush()\n"
            "held = mmap.mmap(file.fileno(), 2**24); os.closerange(3, 99); os.unlink('big'); pause()\n",
            16,
            0,
        ),
        ("file = os.memfd_create('x'); os.write(file, b'x' * 2**24); pause()\n", 0, 16),
    ],
    ids=["a file with a name", "an open one without", "a mapped one without", "memory"],
)
def test_files_without_a_name_count_once_where_they_lie(start, code, on_disk, in_memory):
    tree, on = start("pause()\n" + code)
    before = tree.look()
    assert before.nameless_bytes == 0
    on()
    after = tree.look()
    assert after.nameless_bytes // MEGABYTE == on_disk
    assert (after.resident_bytes - before.resident_bytes) // MEGABYTE >= in_memory
    assert in_memory or after.resident_bytes - before.resident_bytes < 20 * MEGABYTE
