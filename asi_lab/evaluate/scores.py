"""From lm-eval's samples to one strictly positive score per task, with its chance level.

Small models sit at chance on accuracy, so choices are scored by probability and text by bits:

    multiple_choice                      choice_probability, higher is better, chance 1 / choices
    loglikelihood, loglikelihood_rolling bits_per_byte, lower is better, chance uniform over tokens
    generate_until                       smoothed success rate of the task's first metric
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from lm_eval.api.task import Task

from asi_lab.errors import DataError
from asi_lab.evaluate.fault import CandidateFault
from asi_lab.records import CandidateState, TaskResult

Sample = dict[str, Any]
Encode = Callable[[str], list[int]]


def task_result(
    task: Task, samples: Sequence[Sample], figures: dict[str, Any], encode: Encode, vocab_size: int
) -> TaskResult:
    """The result of one task.

    Args:
        task: lm-eval's task.
        samples: its logged samples.
        figures: its row of lm-eval's results.
        encode: tokens of a text.
        vocab_size: number of tokens, for the chance level of text.

    Raises:
        CandidateFault: the score is not finite or not positive.
        DataError: the task has no samples, or none that can be scored.
    """
    name = task.task_name
    first = [sample for sample in samples if sample["filter"] == samples[0]["filter"]]
    if not first:
        raise DataError(f"expected samples of task {name!r}, found none; look at its data files")
    match task.OUTPUT_TYPE:
        case "multiple_choice":
            score_name, higher = "choice_probability", True
            score, chance = _choice_probability(task, first, encode)
        case "loglikelihood" | "loglikelihood_rolling":
            score_name, higher = "bits_per_byte", False
            score, chance = _bits_per_byte(first, encode, vocab_size)
        case _:
            score_name, higher = next(iter(first[0]["metrics"]), "none"), True
            score, chance = _success_rate(name, score_name, first)
    if not math.isfinite(score):
        raise CandidateFault(CandidateState.DIVERGED, f"task {name!r}: {score_name} is {score}")
    if score <= 0:
        raise CandidateFault(
            CandidateState.LEAKING, f"task {name!r}: {score_name} is {score}; no honest model is that certain"
        )
    return TaskResult(name, score, score_name, higher, chance, len(first), _metrics(figures))


def _choice_probability(task: Task, samples: Sequence[Sample], encode: Encode) -> tuple[float, float]:
    """Mean probability of the right choice among the choices, and its chance level.

    A choice counts with its mean log probability per token, so that long and short ones compare,
    and the figure stays smooth where sums would make it all or nothing.
    """
    probabilities, chances = [], []
    for sample in samples:
        choices = task.doc_to_choice(sample["doc"])
        answers = sample["filtered_resps"][: len(choices)]
        texts = [arguments[1] for arguments in sample["arguments"][: len(choices)]]
        means = np.array([a[0] / max(1, len(encode(text))) for a, text in zip(answers, texts, strict=True)])
        weights = np.exp(means - means.max())
        gold = _gold(task, sample["doc"], choices)
        probabilities.append(weights[gold].sum() / weights.sum())
        chances.append(len(gold) / len(choices))
    return float(np.mean(probabilities)), float(np.mean(chances))


def _gold(task: Task, doc: dict[str, Any], choices: Sequence[str]) -> list[int]:
    """Indices of the right choices."""
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


def _bits_per_byte(samples: Sequence[Sample], encode: Encode, vocab_size: int) -> tuple[float, float]:
    """Bits per byte of the scored text, and those of a uniform guess over all tokens."""
    nats, size, tokens = 0.0, 0, 0
    for sample in samples:
        if len(sample["filtered_resps"]) != 1:
            raise DataError(
                f"expected one scored text a sample, found {len(sample['filtered_resps'])}; tasks of this "
                "old kind (MultipleChoiceTask) are not supported, use one with output_type multiple_choice"
            )
        answer, text = sample["filtered_resps"][0], sample["arguments"][0][-1]
        nats -= answer[0] if isinstance(answer, (tuple, list)) else answer
        size += len(text.encode("utf-8"))
        tokens += len(encode(text))
    size = max(1, size)
    return nats / math.log(2) / size, tokens * math.log2(vocab_size) / size


def _success_rate(name: str, metric: str, samples: Sequence[Sample]) -> tuple[float, float]:
    """(successes + 1) / (samples + 2), the rule of succession: a rate that is never 0."""
    values: list[Any] = [sample.get(metric) for sample in samples]
    if not all(isinstance(value, (int, float, np.number)) and 0 <= value <= 1 for value in values):
        raise DataError(
            f"expected task {name!r} to score each generated text in [0, 1], found metric {metric!r} with "
            f"values like {values[0]!r}; only such tasks can enter the fitness"
        )
    return (sum(values) + 1) / (len(values) + 2), 1 / (len(values) + 2)


def _metrics(figures: dict[str, Any]) -> dict[str, float]:
    """lm-eval's own figures, without its marker for tasks that have no filter."""
    return {
        key.removesuffix(",none"): float(value)
        for key, value in figures.items()
        if "," in key and isinstance(value, (int, float, np.number)) and math.isfinite(value)
    }
