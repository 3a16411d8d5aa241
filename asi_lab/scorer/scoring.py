"""What is measured of one trained model: at marks, by full rows, and by bare prefixes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
from lm_eval.api.group import Group
from lm_eval.api.task import Task
from numpy.typing import NDArray

from asi_lab.common.device import pick_device
from asi_lab.data import suites
from asi_lab.data.manifest import HELD_OUT, MARKS_FILE
from asi_lab.data.shards import held_out_windows
from asi_lab.data.tokenizer import Tokenizer
from asi_lab.errors import DataError
from asi_lab.protocol import COMPARED_FILE, Compare, ScoreJob
from asi_lab.records import CandidateState, Evaluation, HeldOut, TaskResult
from asi_lab.scorer import harness
from asi_lab.scorer.client import Remote
from asi_lab.scorer.compare import Position, differences, drawn, is_rounding
from asi_lab.scorer.fault import CandidateFault
from asi_lab.scorer.lm import RemoteLM, ScoredPiece
from asi_lab.scorer.loss import mean_loss, target_log_probs
from asi_lab.scorer.output import Output
from asi_lab.scorer.probes import ProbeTest
from asi_lab.scorer.scores import TaskScore

SUSPECT_CHECKS = 256
"""Prefixes that are compared where a loss is implausibly low."""


class Scoring:
    """Everything that is needed to measure, loaded before the trial answers."""

    def __init__(self, job: ScoreJob) -> None:
        """Raises `LabError` where data or tasks are unusable."""
        settings, data = job.evaluate, Path(job.data)
        self.job, self.settings = job, settings
        self.device = pick_device(job.device)
        self.tokenizer = Tokenizer.load(data)
        text = HELD_OUT[job.text]
        self.windows = held_out_windows(data, text.shard, job.train_context, settings.loss_tokens)
        self.mark_windows = held_out_windows(data, MARKS_FILE, job.train_context, settings.mark_tokens)
        self._items = harness.load(settings.tasks, data / text.tasks, job.consented, settings.datasets)
        tasks = [task for item in self._items for task in harness.parts(item)]
        if job.text == "search" and (wrong := suites.kept_for_claims(task.task_name for task in tasks)):
            raise DataError(
                f"expected none of generalization's tasks in evaluate.tasks, found {', '.join(wrong)}; "
                "they go into verify.tasks"
            )
        self._scored_tasks = [task for task in tasks if not harness.generates(task)]
        self._generated_tasks = [task for task in tasks if harness.generates(task)]
        self._batch_tokens = settings.batch * job.train_context
        self._seconds = 0.0

    def measure(self, trial: Remote, step: int) -> HeldOut:
        """The held-out loss at a mark. Where it is implausibly low, everything that shows leaks is repeated.

        The trial answers prefixes itself here, and says what head it has: marks enter no score.

        Raises:
            CandidateFault: the candidate leaks or diverged.
            WireError: the trial is gone.
        """
        began = time.perf_counter()
        output = trial.output(self.tokenizer.vocab_size)
        found = target_log_probs(trial, output, self.mark_windows, self.settings.batch)
        loss, bound = mean_loss(found), self.job.suspect_below.get(step)
        suspect = bound is not None and loss < bound
        checks = max(self.settings.prefix_checks, SUSPECT_CHECKS if suspect else 0)
        self._compare_windows(trial, output, self.mark_windows, found, checks, "a row at a mark")
        if suspect and (faults := trial.recheck()):
            raise CandidateFault(
                CandidateState.LEAKING,
                f"after {step} steps the held-out loss was {loss:.4f}, implausibly low (under {bound:.4f}), "
                f"and the repeated checks found a fault: {'; '.join(faults)}",
            )
        return HeldOut(step=step, loss=loss, seconds=time.perf_counter() - began, suspect=suspect)

    def score(self, trial: Remote, checkpoint: Path) -> None:
        """Take in what the trial says of all full rows, those of the loss first, those of probes last.

        Raises:
            CandidateFault, WireError: as `measure`.
            DataError: a task cannot be scored.
        """
        began = time.perf_counter()
        self.output = Output.of_checkpoint(checkpoint, self.job.model, self.tokenizer.vocab_size, self.device)
        self.log_probs = target_log_probs(trial, self.output, self.windows, self.settings.batch)
        self.loss = mean_loss(self.log_probs)
        lm = self._lm(trial)
        self.tasks = self._run(lm, self._scored_tasks)
        self.pieces = lm.scored
        self.probes = [
            ProbeTest(name, checkpoint.parent, self.job.data_seed, self.device, self.settings.batch)
            for name in self.settings.probes
        ]
        for probe in self.probes:
            probe.ask(trial)
        self._seconds = time.perf_counter() - began

    def compare(self, server: Remote, wanted: Compare) -> Evaluation:
        """Compare answers at so many positions with those of the server to bare prefixes, have it generate
        what is to be generated, and sum up.

        Raises:
            CandidateFault: an answer differs; a task gives no finite score.
            WireError: the server is gone.
            DataError: a task cannot be scored.
        """
        began = time.perf_counter()
        found = self._compare_windows(
            server, self.output, self.windows, self.log_probs, wanted.loss_positions, "a held-out row"
        )
        correction = 0.0 if is_rounding(found) else -float(found.mean())
        results, compared = self._compare_tasks(server, wanted.task_positions)
        generated = self._run(self._lm(server), self._generated_tasks)
        results |= {score.name: score.result() for score in generated}
        scores = {score.name: score for score in (*self.tasks, *generated)}
        of_each = wanted.probe_positions // max(1, len(self.probes))
        of_probes = [probe.compare(server, of_each, _write_down) for probe in self.probes]
        return Evaluation(
            loss=self.loss + correction,
            loss_tokens=self.log_probs.size,
            tasks=(
                *(_result(item, scores, results) for item in self._items),
                *(result for result, _ in of_probes),
            ),
            prefix_positions=len(found) + compared + sum(count for _, count in of_probes),
            seconds=self._seconds + time.perf_counter() - began,
            correction=correction,
        )

    def _compare_windows(
        self,
        model: Remote,
        output: Output,
        windows: NDArray[np.int64],
        log_probs: NDArray[np.float32],
        count: int,
        what: str,
    ) -> NDArray[np.float64]:
        numbers = drawn(log_probs.size, count)
        rows, columns = np.divmod(numbers, log_probs.shape[1])
        positions = [
            Position(
                int(row),
                windows[row, : column + 1],
                int(windows[row, column + 1]),
                float(log_probs[row, column]),
            )
            for row, column in zip(rows, columns, strict=True)
        ]
        found = self._differences(model, output, positions, what)
        _write_down({"rows": what, "positions": numbers.tolist(), "differences": found.tolist()})
        return found

    def _compare_tasks(self, server: Remote, count: int) -> tuple[dict[str, TaskResult], int]:
        """The results of the tasks whose texts were scored, and how many positions were compared."""
        ends = np.cumsum([len(piece.tokens) for piece in self.pieces], dtype=np.int64)
        total = int(ends[-1]) if len(ends) else 0
        numbers = drawn(total, count)
        of_piece = np.searchsorted(ends, numbers, side="right")
        places = [
            (self.pieces[piece], int(number - ends[piece]) + len(self.pieces[piece].tokens))
            for piece, number in zip(of_piece, numbers, strict=True)
        ]
        positions = [_position(piece, at) for piece, at in places]
        found = self._differences(server, self.output, positions, "a row of a task")
        _write_down({"rows": "tasks", "positions": numbers.tolist(), "differences": found.tolist()})
        corrections = dict.fromkeys((score.name for score in self.tasks), 0.0)
        if not is_rounding(found):
            of_task = {score.name: score.measure for score in self.tasks}
            for (piece, _), difference in zip(places, found.tolist(), strict=True):
                task, document, choice = piece.request
                moved = of_task[task].shift(document, choice, difference)
                corrections[task] += moved * total / len(numbers)
        return {score.name: score.result(corrections[score.name]) for score in self.tasks}, len(numbers)

    def _differences(
        self, model: Remote, output: Output, positions: Sequence[Position], what: str
    ) -> NDArray[np.float64]:
        return differences(model, output, positions, self.settings.batch, self._batch_tokens, what)

    def _lm(self, model: Remote) -> RemoteLM:
        return RemoteLM(
            model,
            self.output,
            self.tokenizer,
            max_length=self.settings.max_length,
            batch=self.settings.batch,
            batch_tokens=self._batch_tokens,
        )

    def _run(self, lm: RemoteLM, tasks: Sequence[Task]) -> list[TaskScore]:
        """The scores of tasks, which run one after the other, so that the time of each is known."""
        scores = []
        for task in tasks:
            began = time.perf_counter()
            scores += harness.evaluate(lm, [task], self.settings.limit, self.job.data_seed)
            scores[-1].seconds = time.perf_counter() - began
        return scores


def _result(
    item: Task | Group, scores: Mapping[str, TaskScore], results: Mapping[str, TaskResult]
) -> TaskResult:
    """The result of a task, or that of a group from those of its parts."""
    names = [task.task_name for task in harness.parts(item)]
    if not isinstance(item, Group):
        return results[names[0]]
    return harness.averaged(item, [scores[name] for name in names], [results[name] for name in names])


def _position(piece: ScoredPiece, at: int) -> Position:
    """Token `at` of a piece; all texts of one question are one group."""
    prefix = np.array(piece.prefix(at), np.int64)
    group = piece.request.task, piece.request.document
    return Position(group, prefix, piece.tokens[at], float(piece.log_probs[at]))


def _write_down(compared: dict[str, object]) -> None:
    with Path(COMPARED_FILE).open("ab") as log:
        log.write(msgspec.json.encode(compared) + b"\n")
