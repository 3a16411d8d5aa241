"""The engine hears from the scorer while it works and after long answers, but not while it waits."""

import os
import time

import pytest

from asi_lab.scorer import listening
from asi_lab.scorer.listening import Listening, Pulse


@pytest.fixture
def ears(monkeypatch):
    """Two ears with one pulse, where the first one's words are put in, and when it beat."""
    monkeypatch.setattr(listening, "PULSE_SECONDS", 0.05)
    pipes = [os.pipe() for _ in range(2)]
    heard: list[float] = []
    pulse = Pulse(lambda: heard.append(time.monotonic()))
    with Listening(pipes[0][0], pulse) as first, Listening(pipes[1][0], pulse):
        yield first, pipes[0][1], heard
    for _, sink in pipes:
        os.close(sink)


def test_it_beats_while_the_scorer_works(ears):
    _, _, heard = ears
    deadline = time.monotonic() + 30
    while len(heard) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(heard) >= 3


def test_it_is_silent_while_one_is_waited_for_and_beats_after_its_answer(ears):
    reader, sink, heard = ears
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
    assert [beat for beat in heard if began + 0.1 < beat < ended - 0.1] == []
    assert heard[-1] >= ended - 0.1
    os.waitpid(pid, 0)
