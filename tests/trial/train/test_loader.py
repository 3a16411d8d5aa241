"""Batches come in order, one ahead, and errors arrive where they are asked for."""

import threading

import numpy as np
import pytest
import torch

from asi_lab.trial.train.loader import prefetched

CPU = torch.device("cpu")


class Stream:
    def __init__(self, fails_at: int | None = None) -> None:
        self.asked: list[int] = []
        self.fails_at = fails_at
        self.gathered = threading.Condition()

    def batch(self, step: int) -> np.ndarray:
        with self.gathered:
            self.asked.append(step)
            self.gathered.notify_all()
        if step == self.fails_at:
            raise OSError("the disk is gone")
        return np.full((2, 3), step, dtype=np.int64)


def test_each_step_once_in_order_from_any_start():
    stream = Stream()
    found = [(step, tokens.tolist()) for step, tokens in prefetched(stream, range(3, 7), CPU)]
    assert found == [(step, [[step] * 3] * 2) for step in (3, 4, 5, 6)]
    assert stream.asked == [3, 4, 5, 6]
    assert list(prefetched(Stream(), range(5, 5), CPU)) == []


def test_the_next_batch_is_gathered_while_one_is_used():
    stream = Stream()
    for step, _ in prefetched(stream, range(3), CPU):
        if step < 2:
            with stream.gathered:
                assert stream.gathered.wait_for(lambda: step + 1 in stream.asked, timeout=10)  # noqa: B023


def test_an_error_of_the_data_is_raised():
    batches = prefetched(Stream(fails_at=2), range(5), CPU)
    assert [next(batches)[0], next(batches)[0]] == [0, 1]
    with pytest.raises(OSError, match="disk"):
        next(batches)
