"""What was measured of a candidate or a reference, and how far it came."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import NamedTuple

import msgspec


class CandidateState(StrEnum):
    """How far a candidate came. The first nine are steps of the way, the others are ends."""

    PROPOSED = "proposed"
    CHECKED = "checked"
    PREFLIGHTED = "preflighted"
    TRAINING = "training"
    TRAINED = "trained"
    EVALUATED = "evaluated"
    JUDGED = "judged"
    ANALYSED = "analysed"
    DONE = "done"

    DUPLICATE = "duplicate"
    REJECTED = "rejected"
    BROKEN = "broken"
    LEAKING = "leaking"
    SUSPECT = "suspect"
    DIVERGED = "diverged"
    SLOW = "slow"
    PRUNED = "pruned"
    TIMED_OUT = "timed_out"
    OUT_OF_MEMORY = "out_of_memory"
    FORGED = "forged"
    INTERRUPTED = "interrupted"

    @property
    def is_failure(self) -> bool:
        """True for the states in which a candidate ends without a score."""
        return self in _FAILURES

    @property
    def is_terminal(self) -> bool:
        """True when nothing more will happen to the candidate."""
        return self is CandidateState.DONE or self in _FAILURES


_STEPS = list(CandidateState)[: list(CandidateState).index(CandidateState.DONE) + 1]
_FAILURES = frozenset(CandidateState) - frozenset(_STEPS)


class Check(msgspec.Struct, frozen=True):
    """One verdict of the checks, with the number behind it.

    `detail` is the evidence in words: condition, mode, position in the tensor. `line` is the line of the
    candidate's source that is responsible, where it could be found. `seconds` is what the check took.
    """

    name: str
    passed: bool
    value: float | None = None
    tolerance: float | None = None
    detail: str = ""
    line: int | None = None
    seconds: float = 0.0


CHOICE_PROBABILITY = "choice_probability"
"""The name of the score of a choice task: the probability of the right choice among the choices."""

ACCURACIES = ("acc", "acc_norm", "exact_match")
"""lm-eval's names of the share of right answers; the first that a task has is shown, where the paper reads no
other."""


class TaskResult(msgspec.Struct, frozen=True):
    """One evaluation task.

    `score` is the strictly positive figure that enters the fitness (`score_name`, for example
    `choice_probability` or `bits_per_byte`); `higher_is_better` gives its sign. `chance` is what
    `score` would be for a model that knows nothing. `metrics` are lm-eval's own figures, of the trial's full
    rows as they came: what they claim too much is taken out of `score` alone. The `curve` of a probe is the
    mean log probability of an answer (nats) after so many steps of its training. `seconds` is what the task
    took, training included; it enters nothing. `reported` are the metrics that the paper reads of the task.
    """

    task: str
    score: float
    score_name: str
    higher_is_better: bool
    chance: float
    samples: int
    metrics: dict[str, float] = {}
    curve: tuple[tuple[int, float], ...] = ()
    seconds: float = 0.0
    reported: tuple[str, ...] = ()

    @property
    def figures(self) -> dict[str, float]:
        """The metrics for people: those that the paper reads, else the first accuracy if any."""
        names = self.reported or next(((name,) for name in ACCURACIES if name in self.metrics), ())
        return {name: self.metrics[name] for name in names if name in self.metrics}

    @property
    def accuracy(self) -> float | None:
        """The share of right answers, as lm-eval counts them; None where a task has no such figure."""
        return next((value for name, value in self.figures.items() if name in ACCURACIES), None)

    @property
    def chance_accuracy(self) -> float | None:
        """What `accuracy` would be for a model that knows nothing; None where that is not known."""
        return self.chance if self.score_name == CHOICE_PROBABILITY else None

    def chance_of(self, metric: str) -> float | None:
        """Likewise of any metric."""
        return self.chance_accuracy if metric in ACCURACIES else None

    @property
    def words(self) -> str:
        """The result in a line, for a language model."""
        better = "higher" if self.higher_is_better else "lower"
        figure = f"{self.score_name} {self.score:.4f}"
        return f"task {self.task}: {figure} ({better} is better, chance {self.chance:.4f})"


class Training(msgspec.Struct, frozen=True):
    """What training a model cost and gave.

    The engine's own figures: `params`, all elements of the checkpoint, tied ones once; `steps` and `tokens`,
    which the job fixes; `seconds` of wall time from the job to the copied checkpoint, checks and compilation
    included, and `tokens_per_second` over them; `step_seconds`, the mean wall time of a step, marks left out;
    `cpu_seconds` of all processes of the trial.

    The rest is what the trial says of itself, and enters nothing: `body_params` without embeddings,
    `train_loss` (nats per token), `peak_memory_mb`, `compile_seconds`, `flops_per_token` that the model's
    size asks for, `matmul_rate`, the operations a second of a large matrix product on the same device, and
    `joules` of the GPU (None where that is not counted).
    """

    params: int
    body_params: int
    steps: int
    tokens: int
    train_loss: float
    seconds: float
    tokens_per_second: float
    peak_memory_mb: float
    compile_seconds: float = 0.0
    flops_per_token: float = 0.0
    matmul_rate: float = 0.0
    joules: float | None = None
    step_seconds: float = 0.0
    cpu_seconds: float = 0.0

    @property
    def utilisation(self) -> float | None:
        """Model FLOPs utilisation: the share of the device's matrix product rate; None where not measured."""
        if not self.matmul_rate:
            return None
        in_steps = self.step_seconds * self.steps  # 0 where the record is of rules that kept none
        rate = self.tokens / in_steps if in_steps else self.tokens_per_second
        return self.flops_per_token * rate / self.matmul_rate


class Work(msgspec.Struct, frozen=True):
    """What a model asks of a machine for each token of training, as a fresh process has counted it: floating-
    point `operations`, and the `bytes` that all operations read and write."""

    operations: float
    bytes: float

    @property
    def size(self) -> float:
        """Both in one figure, whose ratios are the geometric means of theirs."""
        return math.sqrt(self.operations * self.bytes)


class HeldOut(msgspec.Struct, frozen=True):
    """Held-out loss in nats per token, measured by the scoring process while training stood still.

    `step` steps were done. `seconds` is how long it took. `suspect` says that the loss was implausibly low,
    and that the checks for leaks were repeated then and found nothing. `prefix_error` is only kept of older
    labs: see `Evaluation`.
    """

    step: int
    loss: float
    prefix_error: float = 0.0
    seconds: float = 0.0
    suspect: bool = False


class Evaluation(msgspec.Struct, frozen=True):
    """What the scoring process measured: held-out loss in nats per token, and the tasks.

    Full rows come from the trial. At `prefix_positions` of them a fresh process that never held a target gave
    the same answer from the bare prefix; `correction` is the mean difference in nats (prefix minus full row)
    that the loss contains, exactly 0 where it is rounding. `prefix_error` is only kept of older labs: there
    it is the largest deviation of a hidden state between row and prefix, relative to its RMS."""

    loss: float
    loss_tokens: int
    tasks: tuple[TaskResult, ...]
    prefix_error: float = 0.0
    prefix_positions: int = 0
    seconds: float = 0.0
    correction: float = 0.0

    def result_of(self, task: str) -> TaskResult:
        """The result of one of its tasks."""
        return next(found for found in self.tasks if found.task == task)

    def score_of(self, task: str) -> float:
        """The score of one of its tasks."""
        return self.result_of(task).score


class Evidence(msgspec.Struct, frozen=True):
    """Everything the engineer measured. `failure` is the state to end in, None when all went well.

    `held_out` is the curve of the held-out loss at the marks of the training; `prunable` says whether limits
    were in force there. `work` is what the serving process has counted; None where it did not come
    that far, and in labs of older rules.
    """

    checks: tuple[Check, ...] = ()
    training: Training | None = None
    evaluation: Evaluation | None = None
    failure: CandidateState | None = None
    error: str = ""
    held_out: tuple[HeldOut, ...] = ()
    prunable: bool = False
    work: Work | None = None

    @property
    def trained(self) -> Training:
        """The training, where it was ended."""
        assert self.training is not None
        return self.training

    @property
    def measured(self) -> Evaluation:
        """The evaluation, where there was one."""
        assert self.evaluation is not None
        return self.evaluation


TUNING_SEED = 1000
"""The first index of the seeds that learning rates are tuned with. Runs with them count nowhere else."""


class Run(NamedTuple):
    """A run of a reference: which architecture, the index of its seed, its learning rate over the
    preset's."""

    architecture: str
    seed_index: int
    rate: float = 1.0

    @property
    def words(self) -> str:
        """For messages."""
        rate = "" if self.rate == 1.0 else f" at {self.rate:g} times the learning rate"
        return f"{self.architecture} seed {self.seed_index}{rate}"

    @property
    def is_tuning(self) -> bool:
        """Whether it is one of those that only tell the best learning rate."""
        return self.seed_index >= TUNING_SEED


class BaselineRun(msgspec.Struct, frozen=True):
    """One run of a reference architecture, measured in this lab like a candidate. `rate` is its learning
    rate over the preset's. Of a run that failed the evidence says why."""

    architecture: str
    seed_index: int
    evidence: Evidence
    rate: float = 1.0

    @property
    def run(self) -> Run:
        """Which run it is."""
        return Run(self.architecture, self.seed_index, self.rate)

    @property
    def failure(self) -> str:
        """Why it failed, in a line; empty where it did not."""
        if self.evidence.failure is None:
            return ""
        state, lines = self.evidence.failure.value, self.evidence.error.strip().splitlines() or ["no message"]
        return lines[-1] if lines[-1].startswith(state) else f"{state}: {lines[-1]}"

    @property
    def is_baseline(self) -> bool:
        """Whether it is one of the lab's baselines: at the preset's learning rate, and not of tuning's
        seeds."""
        return self.rate == 1.0 and not self.run.is_tuning
