"""From lm-eval's samples to one strictly positive score per task, with its chance level.

Small models sit at chance on accuracy, so choices are scored by probability and text by bits:

    multiple_choice                      choice_probability, higher is better, chance 1 / choices
    loglikelihood, loglikelihood_rolling bits_per_byte, lower is better, chance uniform over tokens
    generate_until                       smoothed success rate of the task's first metric
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from lm_eval.api.task import Task
from numpy.typing import NDArray

from asi_lab.data import suites
from asi_lab.errors import DataError
from asi_lab.records import CHOICE_PROBABILITY, CandidateState, TaskResult
from asi_lab.scorer.fault import CandidateFault

Sample = dict[str, Any]
Encode = Callable[[str], list[int]]


class TaskMeasure(Protocol):
    """How a task's samples become its score."""

    name: str
    higher_is_better: bool
    score: float
    chance: float

    def shift(self, document: int, choice: int, nats: float) -> float:
        """By how much the score would move if the log probability of one of its texts were so much higher."""


class TaskScore:
    """The score of one task, and what it would be if log probabilities were others. `figures` are lm-eval's,
    `seconds` it took."""

    def __init__(
        self,
        task: Task,
        samples: Sequence[Sample],
        figures: dict[str, Any],
        encode: Encode,
        vocab_size: int,
    ) -> None:
        """Take lm-eval's results in.

        Args:
            task: lm-eval's task.
            samples: its logged samples.
            figures: its row of lm-eval's results.
            encode: tokens of a text.
            vocab_size: number of tokens, for the chance level of text.

        Raises:
            DataError: the task has no samples, or none that can be scored.
        """
        self.name, self.figures, self.seconds = task.task_name, figures, 0.0
        first = [sample for sample in samples if sample["filter"] == samples[0]["filter"]]
        if not first:
            raise DataError(f"expected samples of task {self.name!r}, found none; look at its data files")
        self._samples = len(first)
        self.measure: TaskMeasure
        match task.OUTPUT_TYPE:
            case "multiple_choice":
                self.measure = _ChoiceProbability(task, first, encode)
            case "loglikelihood" | "loglikelihood_rolling":
                self.measure = _BitsPerByte(first, encode, vocab_size)
            case _:
                self.measure = _SuccessRate(self.name, first)

    def result(self, correction: float = 0.0) -> TaskResult:
        """The result, with a correction of the score.

        Raises:
            CandidateFault: the score is not finite or not positive.
        """
        found = self.measure
        score = found.score + correction
        if not math.isfinite(score):
            raise CandidateFault(CandidateState.DIVERGED, f"task {self.name!r}: {found.name} is {score}")
        if score <= 0:
            raise CandidateFault(
                CandidateState.LEAKING,
                f"task {self.name!r}: {found.name} is {score}; no honest model is that certain",
            )
        return TaskResult(
            self.name,
            score,
            found.name,
            found.higher_is_better,
            found.chance,
            self._samples,
            metrics_of(self.figures),
            seconds=self.seconds,
            reported=suites.figures(self.name),
        )


class _ChoiceProbability:
    """Mean probability of the right choice among the choices.

    A choice counts with its mean log probability per token, so that long and short ones compare,
    and the figure stays smooth where sums would make it all or nothing.
    """

    name, higher_is_better = CHOICE_PROBABILITY, True

    def __init__(self, task: Task, samples: Sequence[Sample], encode: Encode) -> None:
        self._questions: dict[int, tuple[NDArray[np.float64], NDArray[np.float64], list[int]]] = {}
        chances = []
        for sample in samples:
            choices = task.doc_to_choice(sample["doc"])
            answers = sample["filtered_resps"][: len(choices)]
            texts = [arguments[1] for arguments in sample["arguments"][: len(choices)]]
            sizes = np.array([max(1, len(encode(text))) for text in texts], np.float64)
            sums = np.array([answer[0] for answer in answers], np.float64)
            gold = _gold(task, sample["doc"], choices)
            self._questions[sample["doc_id"]] = sums, sizes, gold
            chances.append(len(gold) / len(choices))
        self.score = float(np.mean([_probability(*question) for question in self._questions.values()]))
        self.chance = float(np.mean(chances))

    def shift(self, document: int, choice: int, nats: float) -> float:
        """As the protocol says; texts that are no choices move nothing."""
        sums, sizes, gold = self._questions[document]
        if choice >= len(sums):
            return 0.0
        moved = sums.copy()
        moved[choice] += nats
        change = _probability(moved, sizes, gold) - _probability(sums, sizes, gold)
        return change / len(self._questions)


def _probability(sums: NDArray[np.float64], sizes: NDArray[np.float64], gold: list[int]) -> float:
    """Probability of the right choices, from log probabilities (nats) and sizes (tokens) of all of them."""
    means = sums / sizes
    weights = np.exp(means - means.max())
    return float(weights[gold].sum() / weights.sum())


class _BitsPerByte:
    """Bits per byte of the scored text; chance is a uniform guess over all tokens."""

    name, higher_is_better = "bits_per_byte", False

    def __init__(self, samples: Sequence[Sample], encode: Encode, vocab_size: int) -> None:
        nats, size, tokens = 0.0, 0, 0
        for sample in samples:
            if len(sample["filtered_resps"]) != 1:
                raise DataError(
                    f"expected one scored text a sample, found {len(sample['filtered_resps'])}; tasks of "
                    "this old kind (MultipleChoiceTask) are not supported, use one with output_type "
                    "multiple_choice"
                )
            answer, text = sample["filtered_resps"][0], sample["arguments"][0][-1]
            nats -= answer[0] if isinstance(answer, (tuple, list)) else answer
            size += len(text.encode("utf-8"))
            tokens += len(encode(text))
        self._size = max(1, size)
        self.score = nats / math.log(2) / self._size
        self.chance = tokens * math.log2(vocab_size) / self._size

    def shift(self, document: int, choice: int, nats: float) -> float:
        """As the protocol says."""
        return -nats / math.log(2) / self._size


class _SuccessRate:
    """(successes + 1) / (samples + 2), the rule of succession: a rate that is never 0."""

    higher_is_better = True

    def __init__(self, task: str, samples: Sequence[Sample]) -> None:
        self.name = next(iter(samples[0]["metrics"]), "none")
        values: list[Any] = [sample.get(self.name) for sample in samples]
        if not all(isinstance(value, (int, float, np.number)) and 0 <= value <= 1 for value in values):
            raise DataError(
                f"expected task {task!r} to score each generated text in [0, 1], found metric {self.name!r} "
                f"with values like {values[0]!r}; only such tasks can enter the fitness"
            )
        self.score, self.chance = (sum(values) + 1) / (len(values) + 2), 1 / (len(values) + 2)

    def shift(self, document: int, choice: int, nats: float) -> float:
        """Generated text has no log probability that is scored."""
        return 0.0


def _gold(task: Task, doc: dict[str, Any], choices: Sequence[str]) -> list[int]:
    """Indices of the right choices: where a task judges answers by code of its own, those that this calls
    right (bbq has ten ways to say that it cannot be known, and doc_to_target gives the first)."""
    if callable(task.config.process_results):
        alone = [[(float(i == j), False) for j in range(len(choices))] for i in range(len(choices))]
        judged = [i for i, one in enumerate(alone) if task.process_results(doc, one).get("acc") == 1]
        if judged:
            return judged
    gold = task.doc_to_text(doc) if getattr(task, "multiple_input", 0) else task.doc_to_target(doc)
    answers = gold if isinstance(gold, list) else [gold]
    indices = [
        choices.index(answer) if isinstance(answer, str) and answer in choices else answer
        for answer in answers
    ]
    if not indices or not all(isinstance(i, int) and 0 <= i < len(choices) for i in indices):
        raise DataError(
            f"expected the answer of task {task.task_name!r} to be one of {len(choices)} choices, "
            f"found {gold!r}; look at doc_to_target in its YAML"
        )
    return indices


def metrics_of(figures: dict[str, Any]) -> dict[str, float]:
    """lm-eval's own figures, without its marker for tasks that have no filter."""
    return {
        key.removesuffix(",none"): float(value)
        for key, value in figures.items()
        if "," in key and isinstance(value, (int, float, np.number)) and math.isfinite(value)
    }
