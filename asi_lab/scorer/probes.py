"""Probes in the scorer: tests of the tiny models that a trial has trained, at every mark of their training.

The streams of a test are drawn from the weights that are tested: nobody can have trained on them. Full rows
come from the trial; at drawn answers a fresh server is asked from the bare prefix.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from asi_lab.common.randomness import keyed_seed
from asi_lab.data.probes import MODEL, PROBES, Streams
from asi_lab.protocol import probe_file, snapshot_name
from asi_lab.records import CandidateState, TaskResult
from asi_lab.scorer.client import Remote
from asi_lab.scorer.compare import Position, differences, drawn, is_rounding
from asi_lab.scorer.fault import CandidateFault
from asi_lab.scorer.output import Output

SCORE_NAME = "answer_probability"
ROUNDING_NATS = 1e-4
"""Up to this mean size differences count for nothing: these models are trained at ten times the usual rate,
and their rounding is larger."""

WriteDown = Callable[[dict[str, object]], None]


class ProbeTest:
    """The test of one probe: what the trial answers at each mark, then what the server does."""

    def __init__(self, name: str, folder: Path, data_seed: int, device: torch.device, batch: int) -> None:
        """`folder` holds the weights; `batch` is how many streams are sent at once.

        Raises:
            CandidateFault: the weights cannot be used.
        """
        self.probe, self._batch = PROBES[name], batch
        digest, self._outputs = hashlib.sha256(), {}
        for step in self.probe.marks:
            path = folder / probe_file(name, step)
            digest.update(path.read_bytes())
            self._outputs[step] = Output.of_checkpoint(path, MODEL, self.probe.vocabulary, device)
        self._tests = self.probe.tests(keyed_seed(data_seed, name, "test", digest.hexdigest()))
        self._log_probs: dict[int, NDArray[np.float64]] = {}
        self._accuracy = self._seconds = 0.0

    def ask(self, trial: Remote) -> None:
        """Take in what the trial says of all streams, at every mark.

        Raises:
            CandidateFault, WireError: as `Remote.residual`.
        """
        began = time.perf_counter()
        for step, output in self._outputs.items():
            model = trial.of(snapshot_name(self.probe.name, step), MODEL)
            found = [self._answered(model, output, streams) for streams in self._tests]
            self._log_probs[step] = np.concatenate([log_probs for log_probs, _ in found])
            self._accuracy = float(np.concatenate([hits for _, hits in found]).mean())
        self._seconds = time.perf_counter() - began

    def compare(self, server: Remote, count: int, write_down: WriteDown) -> tuple[TaskResult, int]:
        """Compare `count` answers over all marks with the server's from bare prefixes; the result, and how
        many there were.

        Raises:
            CandidateFault: an answer differs; the score is no probability.
            WireError: the server is gone.
        """
        began, curve, compared = time.perf_counter(), [], 0
        for step, output in self._outputs.items():
            log_probs = self._log_probs[step]
            numbers = drawn(len(log_probs), -(-count // len(self._outputs)))
            model = server.of(snapshot_name(self.probe.name, step), MODEL)
            what = f"a test stream of {self.probe.name}"
            longest = max(streams.ids.shape[1] for streams in self._tests)
            positions = self._positions(log_probs, numbers)
            found = differences(model, output, positions, self._batch, self._batch * longest, what)
            told = {"rows": self.probe.name, "step": step, "positions": numbers.tolist()}
            write_down({**told, "differences": found.tolist()})
            correction = 0.0 if is_rounding(found, ROUNDING_NATS) else float(found.mean())
            curve.append((step, float(log_probs.mean()) + correction))
            compared += len(numbers)
        seconds = self._seconds + time.perf_counter() - began
        return self._result(tuple(curve), seconds), compared

    def _answered(
        self, model: Remote, output: Output, streams: Streams
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Log probabilities (nats) [A] of the answers, and whether each is the most probable token."""
        rows, columns = streams.places
        first, length = int(columns.min()), streams.ids.shape[1]
        states = []
        for at in range(0, len(streams.ids), self._batch):
            ids = streams.ids[at : at + self._batch]
            lengths = np.full(len(ids), length)
            whole = model.residual(ids, lengths, np.full(len(ids), first))
            states.append(whole.reshape(len(ids), length - first, -1))
        asked = torch.cat(states)[torch.from_numpy(rows), torch.from_numpy(columns - first)]
        wanted = torch.from_numpy(streams.wanted).to(asked.device)
        log_probs, hits = output.log_probs(asked, wanted)
        return log_probs.double().cpu().numpy(), hits.cpu().numpy()

    def _positions(self, log_probs: NDArray[np.float64], numbers: NDArray[np.int64]) -> list[Position]:
        """Answers by their numbers over all test streams; those of one stream are one group."""
        sizes = [len(streams.wanted) for streams in self._tests]
        ends = np.cumsum(sizes)
        found = []
        for number in numbers.tolist():
            part = int(np.searchsorted(ends, number, side="right"))
            streams, place = self._tests[part], number - int(ends[part]) + sizes[part]
            row, column = (int(axis[place]) for axis in streams.places)
            prefix, target = streams.ids[row, : column + 1], int(streams.answers[row, column])
            found.append(Position((part, row), prefix, target, float(log_probs[number])))
        return found

    def _result(self, curve: tuple[tuple[int, float], ...], seconds: float) -> TaskResult:
        """Half what was learnt in the end, half how soon: the answers' geometric mean probability, over the
        last mark and the area under the curve."""
        name, end = self.probe.name, curve[-1][1]
        area = sum(value for _, value in curve) / len(curve)
        score = math.exp((area + end) / 2) if max(area, end) <= 0.0 else math.nan
        if not score > 0:
            words = f"{name}: an answer has the log probability {end:.4g}, over all marks {area:.4g}"
            raise CandidateFault(CandidateState.DIVERGED, words)
        return TaskResult(
            task=name,
            score=score,
            score_name=SCORE_NAME,
            higher_is_better=True,
            chance=self.probe.chance,
            samples=len(self._log_probs[curve[-1][0]]),
            metrics={"accuracy": self._accuracy, "log_probability": end, "area": area},
            curve=curve,
            seconds=seconds,
        )
