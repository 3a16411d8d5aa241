"""The values that flow through the loop, one per arrow. All are immutable.

    pool.draw -> Draw -> researcher.propose -> Proposal -> engineer.run -> Evidence
    -> fitness.score -> Score -> analyst.explain -> Analysis -> store, lineage

A `Candidate` is the record that collects them; `Candidate.state` says how far it came.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Any, NamedTuple

import msgspec

SEED_ID = 0
"""Candidate 0 is the seed architecture (DeltaNet), the root of the lineage."""

RULES = 3
"""How results come about: splits, scores, figures, commits. Results of other rules do not compare."""


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


class Draw(msgspec.Struct, frozen=True):
    """What the pool gave for one candidate.

    `references` may hold fewer than `references_wanted` ids while the pool is young. `step` is how far the
    search had escalated because it stood still (`stagnation`). A parent that was not drawn by rank has
    rank 0: the seed for that reason, or one that a person has pinned (`steering`).
    """

    generation: int
    parent: int
    parent_rank: int
    references: tuple[int, ...] = ()
    references_wanted: int = 4
    step: int = 0


class Neighbour(msgspec.Struct, frozen=True):
    """A candidate with a similar motivation; `similarity` is a cosine in [-1, 1]."""

    id: int
    similarity: float


class Cognition(msgspec.Struct, frozen=True):
    """An insight of the cognition base that was retrieved for a weakness of the parent: the entry's key, the
    insight's title, how well it fits, and the weakness."""

    key: str
    insight: str
    score: float
    weakness: str


class Proposal(msgspec.Struct, frozen=True):
    """A new architecture: why, and the whole source of `architecture.py`.

    `researcher` and `model` say who wrote it. `genome` is the grammar's own description of the
    code, None for code that was not written by the grammar. `change` is the difference from the
    parent in a few words. `rejected` counts the near-duplicates thrown away before this proposal. `prompts`
    are those of a language model, by role: a hash of each. `cognitions` are the insights that a planner was
    handed, or that the grammar leaned to.
    """

    name: str
    motivation: str
    change: str
    code: str
    researcher: str
    model: str = ""
    genome: dict[str, Any] | None = None
    code_hash: str = ""
    nearest: tuple[Neighbour, ...] = ()
    rejected: int = 0
    prompts: dict[str, str] = {}
    cognitions: tuple[Cognition, ...] = ()


class Repair(msgspec.Struct, frozen=True):
    """One change of a candidate's code by the checker or the debugger: what was wrong before (`failure` and
    `error`), and what the model says it changed."""

    role: str
    model: str
    failure: CandidateState
    error: str
    changes: str


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
"""lm-eval's names of the share of right answers; the first that a task has is shown."""


class TaskResult(msgspec.Struct, frozen=True):
    """One evaluation task.

    `score` is the strictly positive figure that enters the fitness (`score_name`, for example
    `choice_probability` or `bits_per_byte`); `higher_is_better` gives its sign. `chance` is what
    `score` would be for a model that knows nothing. `metrics` are lm-eval's own figures, of the trial's full
    rows as they came: what they claim too much is taken out of `score` alone. The `curve` of a probe is the
    mean log probability of an answer (nats) after so many steps of its training. `seconds` is what the task
    took, training included; it enters nothing.
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

    @property
    def accuracy(self) -> float | None:
        """The share of right answers, as lm-eval counts them; None where a task has no such figure."""
        return next((self.metrics[name] for name in ACCURACIES if name in self.metrics), None)

    @property
    def chance_accuracy(self) -> float | None:
        """What `accuracy` would be for a model that knows nothing; None where that is not known."""
        return self.chance if self.score_name == CHOICE_PROBABILITY else None

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
        return self.rate == 1.0 and self.seed_index < TUNING_SEED


class Noise(msgspec.Struct, frozen=True):
    """The noise of one run: its standard deviation over seeds, as it is expected of an architecture that was
    run but once, from the runs of all references (`scoring.statistics`).

    `judge` is that of the mark, as far as the loss moves it; `fitness` takes in all three parts.
    `loss_low` and `loss_high` bound the loss sd at 95 % (chi-square); `freedom` are the degrees
    of freedom with which it is known; `runs` is the number of runs of the seed architecture.
    """

    loss: float
    benchmark: float
    fitness: float
    freedom: float
    runs: int
    loss_low: float
    loss_high: float
    judge: float = 0.0


class Against(msgspec.Struct, frozen=True):
    """How a loss stands to the mean of a reference's `runs` runs, in nats per token: `difference` is negative
    where it is lower, `sd` that of the difference by chance, `margin` how much lower it must be to beat the
    reference at 5 % (one-sided t-test)."""

    reference: str
    runs: int
    difference: float
    sd: float
    margin: float

    @property
    def is_better(self) -> bool:
        """Whether it beats the reference."""
        return self.difference < -self.margin

    @property
    def in_sd(self) -> float | None:
        """How much lower the loss is, in units of `sd`; None without noise."""
        return -self.difference / self.sd if self.sd > 0 else None


class RubricPart(msgspec.Struct, frozen=True):
    """One part of the judge's rubric: points added to DeltaNet's five, and why."""

    name: str
    points: float
    reason: str


class Judgement(msgspec.Struct, frozen=True):
    """The judge's mark in [1, 10]: DeltaNet is 5 and Gated DeltaNet is 10.

    `marks` are those of a judge that was asked several times; `mark` is their median. `beyond` is by how many
    points the mark would lie above 10 if the measured part for performance went on along its line.
    """

    mark: float
    parts: tuple[RubricPart, ...]
    judge: str
    marks: tuple[float, ...] = ()
    beyond: float = 0.0


class Score(msgspec.Struct, frozen=True, omit_defaults=True):
    """Fitness and its three parts, each in [0, 1] (paper sections 2.1 and 3.1).

    The gains are relative improvements over the seed baseline, before clamping. `against` is how the loss
    stood to the references when it was scored, the bar first. `spread` is the sd of one run's fitness at this
    place of its scale. Records of older rules have neither, and their commits leave them out. Candidates are
    ranked by `merit`: the fitness, and above the end of the judge's scale what the measured part adds to it.
    """

    fitness: float
    loss_part: float
    benchmark_part: float
    judge_part: float
    loss_gain: float
    benchmark_gain: float
    judgement: Judgement
    noise: Noise
    against: tuple[Against, ...] = ()
    spread: float = 0.0

    @property
    def merit(self) -> float:
        """What candidates are ranked by."""
        return merit(self.fitness, self.judgement.beyond)


def merit(fitness: float, beyond: float) -> float:
    """The fitness if the judge's scale, a ninth of a third of it a point, had no end at 10."""
    return fitness + beyond / 27


class Difference(msgspec.Struct, frozen=True):
    """One row of the ablation table: this candidate minus another, in units of the noise floor.

    `loss` is in nats (negative is better), `benchmark` and `fitness` are positive when better.
    """

    against: str
    relation: str
    loss: float
    benchmark: float
    fitness: float
    loss_in_noise: float
    benchmark_in_noise: float
    fitness_in_noise: float


FAMILIES = (
    *("state_update", "gating", "convolution", "routing", "normalisation", "feature_map"),
    *("multi_scale", "residual", "positional", "other"),
)
"""What kinds of mechanisms a layer may be made of."""

ORIGINS = ("cognition", "analysis", "originality")
"""Where an idea may come from: papers, the lab's own experience, or neither (paper, section 4.3)."""


class Component(msgspec.Struct, frozen=True):
    """One mechanism of a layer: its family, one of `FAMILIES`, and a label of a few words."""

    family: str
    label: str


class Origin(msgspec.Struct, frozen=True):
    """Where an idea came from, one of `ORIGINS`, and why one thinks so."""

    origin: str
    reason: str = ""


class Analysis(msgspec.Struct, frozen=True):
    """The analyst's text (markdown) with the table it rests on and the weaknesses it names.

    `components` are what the layer is made of, `origin` is where a language model's idea came from; empty
    where nobody said.
    """

    text: str
    summary: str
    ablation: tuple[Difference, ...]
    weaknesses: tuple[str, ...]
    analyst: str
    components: tuple[Component, ...] = ()
    origin: Origin | None = None


class Candidate(msgspec.Struct, frozen=True):
    """One architecture from draw to commit. Times are seconds since the epoch, UTC.

    `starts` counts how often its trial was cut off since it last got on, while the engine lived; `cuts`
    counts all of them, and `trial_seconds` is the wall time of its trials. `repairs` are the changes of its
    code since it was proposed; `released` says that a person let it in although its loss was suspect;
    `thorough` that it was compared with a fresh process at all positions, as who leads the lab must be.
    `rules` are those under which it was made.
    """

    id: int
    state: CandidateState
    created: float
    updated: float
    draw: Draw | None = None
    proposal: Proposal | None = None
    evidence: Evidence | None = None
    score: Score | None = None
    analysis: Analysis | None = None
    commit: str | None = None
    starts: int = 0
    released: bool = False
    repairs: tuple[Repair, ...] = ()
    cuts: int = 0
    trial_seconds: float = 0.0
    thorough: bool = False
    rules: int = 1

    @property
    def name(self) -> str:
        """The architecture's name, or a dash before it has one."""
        return self.proposal.name if self.proposal else "-"

    @property
    def parent(self) -> int | None:
        """Id of the parent architecture; None for the seed."""
        return self.draw.parent if self.draw else None

    @property
    def ancestor(self) -> int:
        """Id of the parent architecture, of a candidate that has one: all but the seed."""
        assert self.draw is not None
        return self.draw.parent

    @property
    def proposed(self) -> Proposal:
        """The proposal, of a candidate that has one."""
        assert self.proposal is not None
        return self.proposal

    @property
    def code(self) -> str:
        """The source, of a candidate that was proposed."""
        return self.proposed.code

    @property
    def found(self) -> Evidence:
        """The evidence, of a candidate that was checked."""
        assert self.evidence is not None
        return self.evidence

    @property
    def measured(self) -> Evaluation:
        """The evaluation, of a candidate that was evaluated."""
        return self.found.measured

    @property
    def scored(self) -> Score:
        """The score, of a candidate that was judged."""
        assert self.score is not None
        return self.score

    @property
    def sha(self) -> str:
        """The commit, of a candidate that was published."""
        assert self.commit is not None
        return self.commit

    @property
    def loss(self) -> float | None:
        """Held-out loss in nats per token, once evaluated."""
        evaluation = self.evidence.evaluation if self.evidence else None
        return evaluation.loss if evaluation else None


class PoolEntry(msgspec.Struct, frozen=True):
    """A finished candidate as the pool sees it: `fitness` is its `merit`, the mean over `runs` runs, `noise`
    the sd of one run's, and `parent` the id of its parent, None for the seed."""

    id: int
    fitness: float
    noise: float = 0.0
    parent: int | None = None
    runs: int = 1
