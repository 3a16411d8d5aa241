"""What the engine, the trial, the server and the scorer say to each other.

The engine starts three processes together, all single use. Each reads its job, one line of JSON, from
standard input, and writes JSON lines, its reports, to the file descriptor it was given with `--report-fd`.
Standard output and error go to a capped log: candidate code may print. Trial and server talk to the scorer
over pairs of pipes with the frames of `asi_lab.common.wire`.

    engine --TrialJob---> trial   --Ready, Checked, Stage, Progress, Standing, ..., Trained, Probed--> engine
    engine --ServeJob---> server  --Ready, Alive, Counted, Failed------------------------------------> engine
    engine --ScoreJob, Measure, Score, Compare--> scorer  --Ready, Measured, Answered, Scored, Failed-> engine
    trial  <--frames: token ids / residual stream-- scorer     full rows, at every mark and in the end
    server <--frames: token ids / residual stream-- scorer     bare prefixes, once the trial is dead and it
                                                               has counted

Reports of trial and server are claims of processes that run candidate code; `asi_lab.engineer.gate` says what
may come when. What enters the fitness comes from the scorer and from the engine's own clocks and counts.
"""

from __future__ import annotations

from typing import Literal, Self

import msgspec

from asi_lab.records import CandidateState, Check, Evaluation, HeldOut, Training, Work
from asi_lab.settings import Evaluate, Limits, ModelSettings, Settings, Train

HeldOutText = Literal["search", "claims"]
"""What is measured on: the text that the search chooses by, or that which only claims are made on."""


class Reach(msgspec.Struct, frozen=True):
    """How far evaluation goes beyond training: the longest sequence, and the rows of a batch."""

    length: int = 0
    rows: int = 0

    @classmethod
    def of(cls, evaluate: Evaluate) -> Self:
        """That of a lab with these settings."""
        return cls(evaluate.max_length, evaluate.batch)


class TrialJob(msgspec.Struct, frozen=True):
    """One candidate to check, train and serve, in the trial's working directory.

    `task` is `check` (preflight alone), `train` (preflight, training, full rows), `resume` (the same from
    where an earlier trial was cut off) or `serve` (load the checkpoint that lies there and answer full rows).
    `data` is an absolute path; `seed` is that of the layers' initialisation, `shared_seed` that of what is
    around them, `data_seed` the lab's. After each number
    of steps in `marks` training is paused while the scorer measures the held-out loss. `reach` is that of the
    evaluation that follows, for checks to look as far. `probes` are to be trained after that, in their order;
    those whose weights lie there already are not among them.
    """

    task: Literal["check", "train", "resume", "serve"]
    data: str
    vocab_size: int
    seed: int
    data_seed: int
    device: str
    model: ModelSettings
    train: Train
    limits: Limits
    marks: tuple[int, ...] = ()
    reach: Reach = Reach()
    shared_seed: int = 0
    probes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        settings: Settings,
        task: Literal["check", "train", "serve"],
        *,
        data: str,
        vocab_size: int,
        seed: int,
        shared_seed: int = 0,
        marks: tuple[int, ...] = (),
    ) -> Self:
        """The job of a lab with these settings."""
        return cls(
            task=task,
            data=data,
            vocab_size=vocab_size,
            seed=seed,
            data_seed=settings.seed,
            device=settings.device,
            model=settings.model,
            train=settings.train,
            limits=settings.limits,
            marks=marks,
            reach=Reach.of(settings.evaluate),
            shared_seed=shared_seed,
            probes=settings.evaluate.probes if task == "train" else (),
        )


class ServeJob(msgspec.Struct, frozen=True):
    """A checkpoint and its architecture's code, in the server's working directory: to count its work for a
    row of `context` tokens, then to answer prefixes with."""

    vocab_size: int
    device: str
    model: ModelSettings
    context: int
    threads: int = 0


class ScoreJob(msgspec.Struct, frozen=True):
    """What the scorer measures: data directory (tokenizer, held-out shards, task files).

    `suspect_below` are, by mark, the held-out losses (nats per token) under which a candidate is suspected
    to leak; a mark that is missing has no such bound. `consented` are hashes of task folders whose code the
    user lets run. `text` is what is measured on.
    """

    data: str
    data_seed: int
    device: str
    train_context: int
    model: ModelSettings
    evaluate: Evaluate
    suspect_below: dict[int, float] = {}
    threads: int = 0
    consented: tuple[str, ...] = ()
    text: HeldOutText = "search"


class TaskData(msgspec.Struct, frozen=True):
    """What `python -m asi_lab.scorer.fetch` says of a task that comes with lm-eval: the data sets that it has
    asked for (`NAME` or `NAME CONFIG`), their size in bytes where that is known, and why they cannot be had,
    empty where they are there."""

    task: str
    datasets: tuple[str, ...]
    bytes: int | None = None
    why: str = ""


class MeasureMark(msgspec.Struct, frozen=True, tag="measure"):
    """To the scorer: training is paused after `step` steps; measure the held-out loss there."""

    step: int


class ScoreWhole(msgspec.Struct, frozen=True, tag="score"):
    """To the scorer: training is over, and this is the copy of its checkpoint, beside which those of the
    probes lie; ask the trial for full rows."""

    checkpoint: str


class Compare(msgspec.Struct, frozen=True, tag="compare"):
    """To the scorer: the trial is dead; compare its rows with bare prefixes that the server answers.

    So many positions of the loss, of the tasks, and of all probes together are drawn.
    """

    loss_positions: int
    task_positions: int
    probe_positions: int = 0


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """Imports are done; waiting for the job. `gpu` says whether there is one to compute on."""

    gpu: bool = False


class Stage(msgspec.Struct, frozen=True, tag="stage"):
    """The candidate reached a state."""

    state: CandidateState


class Checked(msgspec.Struct, frozen=True, tag="checked"):
    """Verdicts of the checks before training or on the trained model; `Failed` follows if one failed."""

    checks: tuple[Check, ...]


class Progress(msgspec.Struct, frozen=True, tag="progress"):
    """One point of the training curve. `loss` is nats per token of that step's batch."""

    step: int
    steps: int
    tokens: int
    loss: float
    learning_rate: float
    tokens_per_second: float
    memory_mb: float


class Alive(msgspec.Struct, frozen=True, tag="alive"):
    """Work goes on, though there is nothing to tell."""


class Compiled(msgspec.Struct, frozen=True, tag="compiled"):
    """The model is compiled, which took `seconds`; training begins."""

    seconds: float


class Saved(msgspec.Struct, frozen=True, tag="saved"):
    """The state after `step` steps, from which training can go on, is on disk."""

    step: int


class AtMark(msgspec.Struct, frozen=True, tag="standing"):
    """Training is paused after `step` steps; the trial answers the scorer until it may go on."""

    step: int


class Trained(msgspec.Struct, frozen=True, tag="trained"):
    """Training is over, the checkpoint is on disk; the trial trains the probes of its job, then answers the
    scorer. `claims` are what it says of its training."""

    claims: Training


class Loaded(msgspec.Struct, frozen=True, tag="loaded"):
    """The checkpoint that lay there is loaded; the trial goes on as after training."""


class Probed(msgspec.Struct, frozen=True, tag="probed"):
    """A probe is trained, and its weights at all of its marks are on disk."""

    probe: str


class Counted(msgspec.Struct, frozen=True, tag="counted"):
    """The server has loaded the checkpoint and counted what it asks for; it now answers the scorer."""

    work: Work


class Measured(msgspec.Struct, frozen=True, tag="measured"):
    """The scorer measured the held-out loss at a mark."""

    held_out: HeldOut


class Answered(msgspec.Struct, frozen=True, tag="answered"):
    """The trial has answered all full rows and is not needed any more."""


class Scored(msgspec.Struct, frozen=True, tag="scored"):
    """The scorer is done."""

    evaluation: Evaluation


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The candidate ends in `state`; `error` holds the evidence (message, last lines)."""

    state: CandidateState
    error: str


PULSE_SECONDS = 10.0
"""All of them say so often that they are alive; silence counts as a stall."""

CLASS_NAME = "DeltaNet"
"""The class every architecture file defines, whatever it holds."""

ARCHITECTURE_FILE = "architecture.py"
CHECKPOINT_FILE = "checkpoint.safetensors"
RESUME_FILE = "resume.pt"
"""Names in a trial's working directory: the candidate's code, the weights that training leaves, and what a
training that was cut off goes on from."""

COMPARED_FILE = "compared.jsonl"
"""What the scorer writes down, in its own working directory, of the positions that it compared."""

PROBE_FILES = "probe_*.safetensors"
"""What matches the names of all files of `probe_file`."""


def probe_file(probe: str, step: int) -> str:
    """The name of the file with a probe's weights after `step` steps."""
    return f"{snapshot_name(probe, step)}.safetensors"


def snapshot_name(probe: str, step: int) -> str:
    """What the scorer calls a probe's model after `step` steps."""
    return f"{probe}-{step}"


LEAK_CHECKS = ("batch", "causality", "statistics")
"""Checks that look for leaks. They are repeated on the trained model, and where a loss is implausibly low."""

PREFLIGHT_CHECKS = (
    *("construction", "parameters", "shapes", "cost", "growth", "dtype", "repeatability", "state"),
    *("state_dict", "learning", *LEAK_CHECKS, "gradients"),
)
"""All checks before training, in their order."""

TRAINED = "trained "
"""Stands before the name of a check that was made on the trained model."""

CURVE_POINTS = 200
"""Points a training curve has, about; they fall on fixed steps."""


def curve_steps(steps: int, after: int = 0) -> list[int]:
    """The steps of a training of `steps` steps that are points of its curve, in order, all behind `after`: at
    equal distances, the first and the last."""
    every = max(1, steps // CURVE_POINTS)
    return [step for step in range(after + 1, steps + 1) if step % every == 0 or step in (1, steps)]


def saved_file(step: int) -> str:
    """The name of the file that a later trial goes on from after `step` steps. It carries the step, so that
    the engine never fetches a newer one than was reported."""
    return f"resume-{step}.pt"


TRIAL_UNUSABLE, SERVER_UNUSABLE = 3, 4
"""Exit statuses of a scorer whose trial, or whose server, went away."""

Report = (
    Ready | Alive | Stage | Checked | Compiled | Progress | Saved | AtMark | Trained | Loaded | Probed
    | Counted
    | Measured | Answered | Scored | Failed
)  # fmt: skip
Command = MeasureMark | ScoreWhole | Compare

MOST_LINE_BYTES = 1 << 20
"""Most bytes of a report."""
MOST_TEXT = 8_000
"""Most characters of a check's detail or of an error; trials cut theirs to it."""

UNREADABLE = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)
"""What msgspec raises for bytes that are none of ours: nested without end, or no UTF-8, among others."""

encoder = msgspec.json.Encoder()
decoder = msgspec.json.Decoder(Report)
command_decoder = msgspec.json.Decoder(Command)
