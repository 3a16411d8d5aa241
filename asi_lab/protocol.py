"""What the engine, the trial and the scoring process say to each other.

The engine starts a trial and its scorer as a pair, both single use. Each reads one line of JSON,
its job, from standard input, and writes JSON lines, its reports, to the file descriptor it was
given with `--report-fd`. Standard output and error go to a capped log: candidate code may print.
Trial and scorer talk over a pair of pipes with the frames of `asi_lab.evaluate.wire`.

    engine --TrialJob--> trial  --Ready, Stage, Progress, ..., Trained, Failed--> engine
    engine --ScoreJob--> scorer --Ready, Measured, Scored, Failed-------------------> engine
    trial <--frames: token ids / hidden states-- scorer    at every mark, and in the end

Reports of the trial are claims of a process that runs candidate code. What enters the fitness
comes from the scorer alone.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from asi_lab.records import CandidateState, Check, Evaluation, HeldOut, Training
from asi_lab.settings import Evaluate, Limits, Model, Train


class TrialJob(msgspec.Struct, frozen=True):
    """One candidate to check, train and serve, in the trial's working directory.

    `task` is `check` (preflight alone), `train` (preflight, training, serving), `resume` (the same from where
    an earlier trial was cut off) or `serve` (load the checkpoint that lies there and serve). `data` is an
    absolute path; `seed` is the initialisation seed, `data_seed` the lab's. After so many steps as `marks`
    say the scorer measures the held-out loss.
    """

    task: Literal["check", "train", "resume", "serve"]
    data: str
    vocab_size: int
    seed: int
    data_seed: int
    device: str
    model: Model
    train: Train
    limits: Limits
    marks: tuple[int, ...] = ()


class ScoreJob(msgspec.Struct, frozen=True):
    """What the scorer measures: data directory (tokenizer, validation shard, task files).

    `suspect_below` are, by mark, the held-out losses (nats per token) under which a candidate is suspected
    to leak; a mark that is missing has no such bound.
    """

    data: str
    data_seed: int
    device: str
    train_context: int
    evaluate: Evaluate
    suspect_below: dict[int, float] = {}
    threads: int = 0


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
    """The model is compiled, which took so many seconds; training begins."""

    seconds: float


class Saved(msgspec.Struct, frozen=True, tag="saved"):
    """What training goes on from after so many steps lies on disk."""

    step: int


class Trained(msgspec.Struct, frozen=True, tag="trained"):
    """Training is over, the checkpoint is on disk, the trial now answers the scorer."""

    training: Training


class Measured(msgspec.Struct, frozen=True, tag="measured"):
    """The scorer measured the held-out loss at a mark."""

    held_out: HeldOut


class Scored(msgspec.Struct, frozen=True, tag="scored"):
    """The scorer is done."""

    evaluation: Evaluation


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The candidate ends in `state`; `error` holds the evidence (message, last lines)."""

    state: CandidateState
    error: str


PULSE_SECONDS = 10.0
"""Both say so often that they are alive; silence counts as a stall."""

CLASS_NAME = "DeltaNet"
"""The class every architecture file defines, whatever it holds."""

ARCHITECTURE_FILE = "architecture.py"
CHECKPOINT_FILE = "checkpoint.pt"
RESUME_FILE = "resume.pt"
"""Names in a trial's working directory: the candidate's code, the weights that training leaves, and what a
training that was cut off goes on from."""


def saved_file(step: int) -> str:
    """The name of what a later trial goes on from after so many steps. It carries the step, so that the
    engine never fetches a newer one than it was told of."""
    return f"resume-{step}.pt"


TRIAL_UNUSABLE = 3
"""Exit status of a scorer whose trial went away or answered what is no answer."""

Report = Ready | Alive | Stage | Checked | Compiled | Progress | Saved | Measured | Trained | Scored | Failed

encoder = msgspec.json.Encoder()
decoder = msgspec.json.Decoder(Report)
