"""Terminals, pipes, colours, and hostile text."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys

import msgspec
import pytest

from asi_lab.lab import Lab, Store
from asi_lab.records import CandidateState

ESCAPE = re.compile(r"\x1b|\x9b|\x07")


HOSTILE = "delta_net_\x1b[31mred\x1b]0;title\x07[/b][link=x]\u202e\x9b2Jé"


@pytest.fixture
def hostile(copied: Lab) -> Lab:
    with Store.open(copied.store) as store:
        old = store.get(1)
        text = f"{HOSTILE}\r\nsecond \x08line"
        proposal = msgspec.structs.replace(
            old.proposal, name=HOSTILE, motivation=text, change=text, researcher=text, model=text
        )
        done = next(c for c in store.candidates(1) if c.state is CandidateState.DONE)
        score = msgspec.structs.replace(done.score, fitness=0.99)
        evidence = msgspec.structs.replace(done.evidence, error=text)
        changes = {"proposal": proposal, "score": score, "evidence": evidence, "state": done.state}
        changes["analysis"] = msgspec.structs.replace(done.analysis, text=text, weaknesses=(text,))
        store.put(msgspec.structs.replace(old, **changes), ("warning", text, {}))
    return copied


@pytest.mark.parametrize(
    "command",
    [["top"], ["status"], ["show", "1"], ["diff", "1"], ["--no-tui", "--experiments", "8"], ["fsck"]],
    ids=" ".join,
)
def test_hostile_text_is_shown_harmless(run, hostile, command):
    shown = run("--lab", hostile.path, *command)
    assert not ESCAPE.search(shown.output)
    assert "\u202e" not in shown.output
    assert "\r" not in shown.output
    if command[0] in ("top", "show"):
        assert "[/b]" in shown.stdout.replace("\n", "")


def test_hostile_text_is_valid_json(run, hostile):
    shown = run("--lab", hostile.path, "show", "1", "--json").stdout
    assert json.loads(shown)["proposal"]["name"] == HOSTILE
    assert not ESCAPE.search(shown)


@pytest.mark.parametrize("output", [">/dev/full", ">&-"])
@pytest.mark.parametrize("command", ["top", "config show", "--version"])
def test_output_that_cannot_be_written_is_told_in_a_line(searched, command, output):
    words = f"{sys.executable} -m asi_lab --lab {searched.path} {command} {output}"
    done = subprocess.run(["bash", "-c", words], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    assert line.startswith("Error: the output cannot be written: ")


def on_terminal(*arguments: object, **environment: str) -> str:
    """What the program writes on a terminal of 80 columns."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "asi_lab", *map(str, arguments)]
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "ASI_LAB")}
    env = {**kept, "TERM": "xterm-256color", "COLUMNS": "80", **environment}
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=env)
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        shown += part
    os.close(ours)
    assert process.wait(timeout=30) == 0
    return shown.decode()


def test_colours_are_for_terminals_that_want_them(searched, candidates):
    colour = re.compile(r"\x1b\[[0-9;]*3\d")
    child = candidates(searched)[-1].id
    for command in (["status", "--once"], ["diff", child], ["show", child, "--code"]):
        assert ESCAPE.search(on_terminal("--lab", searched.path, *command))
        assert not colour.search(on_terminal("--lab", searched.path, *command, NO_COLOR="1"))


def test_a_closed_pipe_is_no_error(searched):
    command = f"{sys.executable} -m asi_lab --lab {searched.path} show 1 --code --json | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("{\n", "")


def test_a_terminal_without_unicode_gets_substitutes(program, searched):
    env = {**os.environ, "PYTHONIOENCODING": "ascii", "COLUMNS": "80"}
    done = program("--lab", searched.path, "top", env=env)
    assert done.returncode == 0
    assert done.stdout.isascii()
