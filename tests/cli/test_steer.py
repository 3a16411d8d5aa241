"""Orders to an engine at work, and its lock."""

from __future__ import annotations

import json
import time

import pytest

from asi_lab.lab import Lab


@pytest.mark.parametrize("command", [["pause"], ["resume"], ["stop"], ["stop", "--now"]], ids=" ".join)
def test_orders_need_an_engine_and_leave_none_behind(run, searched, command):
    result = run("--lab", searched.path, *command)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "none runs" in result.stderr
    assert not list(searched.commands.glob("*"))


def test_orders_are_answered_by_the_engine(run, engine):
    wait_until_running(run, engine)
    result = run("--lab", engine.path, "pause")
    assert (result.exit_code, result.stdout) == (0, "pause taken\n")
    assert str(engine.engine_pid()) in result.stderr
    assert run("--lab", engine.path, "resume").stdout == "resume taken\n"
    assert run("--lab", engine.path, "stop", "--now").stdout == "stop_now taken\n"
    deadline = time.monotonic() + 30
    while engine.engine_pid() is not None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert json.loads(run("--lab", engine.path, "status", "--json").stdout)["engine"]["state"] == "stopped"


def test_a_locked_lab_exits_with_3_and_names_the_process(run, engine):
    wait_until_running(run, engine)
    result = run("--lab", engine.path, "--no-tui", "--experiments", "100")
    assert result.exit_code == 3
    assert f"process {engine.engine_pid()}" in result.stderr
    assert run("--lab", engine.path, "fsck", "--repair").exit_code == 3


def wait_until_running(run, lab: Lab) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        found = json.loads(run("--lab", lab.path, "status", "--json").stdout)
        if found["engine"]["state"] == "running" and found["doing"]:
            return
        time.sleep(0.05)
    raise AssertionError("the engine does not run")
