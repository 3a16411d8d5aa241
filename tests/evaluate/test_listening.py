"""The engine hears from the scorer while it works and after long answers, but not while it waits."""

import os
import time

import pytest

from asi_lab.evaluate import listening
from asi_lab.evaluate.listening import Listening


@pytest.fixture
def ear(monkeypatch):
    monkeypatch.setattr(listening, "PULSE_SECONDS", 0.05)
    source, sink = os.pipe()
    heard: list[float] = []
    with Listening(source, lambda: heard.append(time.monotonic())) as reader:
        yield reader, sink, heard
    os.close(sink)


def test_it_beats_while_the_scorer_works(ear):
    _, _, heard = ear
    deadline = time.monotonic() + 10
    while len(heard) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(heard) >= 3


def test_it_is_silent_while_the_trial_is_and_beats_after_its_answer(ear):
    reader, sink, heard = ear
    pid = os.fork()
    if pid == 0:
        time.sleep(0.5)
        os.write(sink, b"answer")
        os._exit(0)
    buffer = bytearray(6)
    began = time.monotonic()
    assert reader.readinto(buffer) == 6
    ended = time.monotonic()
    assert buffer == b"answer"
    assert ended - began > 0.3
    in_between = [beat for beat in heard if began + 0.1 < beat < ended - 0.05]
    assert in_between == []
    assert heard[-1] >= ended - 0.05
    os.waitpid(pid, 0)


def test_it_ends_with_the_file(monkeypatch):
    monkeypatch.setattr(listening, "PULSE_SECONDS", 0.02)
    source, sink = os.pipe()
    heard: list[int] = []
    Listening(source, lambda: heard.append(1)).close()
    time.sleep(0.1)
    count = len(heard)
    time.sleep(0.1)
    assert len(heard) == count
    os.close(sink)
