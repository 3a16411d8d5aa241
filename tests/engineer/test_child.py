"""The handle of a child process: what is no report is refused, whatever the bytes, and never repeated."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from asi_lab.engineer.child import MalformedReport, Process
from asi_lab.sandbox.command import ConfinedCommand

WRITES = "import os, sys; os.write(int(sys.argv[2]), sys.stdin.buffer.readline())"
NO_REPORTS = {
    "nested without end": b'{"type": "alive", "x": ' + b"[" * 60_000,
    "no UTF-8": b'{"type": "failed", "state": "broken", "error": "\xff"}',
    "a type of its own": b'{"type": "held-out text"}',
    "a state of its own": b'{"type": "stage", "state": "held-out text"}',
}


@pytest.mark.parametrize("what", NO_REPORTS)
def test_what_is_no_report_is_refused_and_not_repeated(tmp_path, what):
    process = Process(ConfinedCommand((sys.executable, "-c", WRITES), {}), {}, tmp_path / "log", tmp_path)
    stdin = process.popen.stdin
    assert stdin is not None
    stdin.write(NO_REPORTS[what] + b"\n")
    stdin.flush()
    process.popen.wait()
    with pytest.raises(MalformedReport) as error:
        process.read()
    assert str(error.value) == "wrote what is no report"
    process.kill()


def test_the_kernel_is_to_take_it_before_the_engine(tmp_path):
    says = "print(open('/proc/self/oom_score_adj').read(), flush=True)"
    process = Process(ConfinedCommand((sys.executable, "-S", "-c", says), {}), {}, tmp_path / "log", tmp_path)
    process.popen.wait()
    assert int(process.log_tail()) == 1000
    assert int(Path("/proc/self/oom_score_adj").read_text()) < 1000
    process.kill()
