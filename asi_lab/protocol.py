"""What the engine, the trial and the scoring process say to each other.

The engine starts a trial and its scorer as a pair, both single use. Each reads one line of JSON,
its job, from standard input, and writes JSON lines, its reports, to the file descriptor it was
given with `--report-fd`. Standard output and error go to a capped log: candidate code may print.
Trial and scorer talk over a pair of pipes with the frames of `asi_lab.evaluate.wire`.

    engine --TrialJob--> trial  --Ready, Stage, Progress, Checked, Trained, Failed--> engine
    engine --ScoreJob--> scorer --Ready, Scored, Failed--------------------------> engine
    trial <--frames: token ids / hidden states-- scorer

Reports of the trial are claims of a process that runs candidate code. What enters the fitness
comes from the scorer alone.
"""

from __future__ import annotations

import msgspec

from asi_lab.records import CandidateState, Check, Evaluation, Training
from asi_lab.settings import Evaluate, Limits, Model, Train


class TrialJob(msgspec.Struct, frozen=True):
    """One candidate to check, train and serve. Paths are absolute; `seed` is the
    initialisation seed, `data_seed` the lab's. With `resume` the checkpoint in `directory`
    is loaded instead of checking and training again. `baseline_params` is 0 where unknown."""

    directory: str
    data: str
    seed: int
    data_seed: int
    device: str
    model: Model
    train: Train
    limits: Limits
    baseline_params: int = 0
    resume: bool = False


class ScoreJob(msgspec.Struct, frozen=True):
    """What the scorer measures: data directory (tokenizer, validation shard, task files)."""

    data: str
    data_seed: int
    device: str
    train_context: int
    evaluate: Evaluate
    threads: int = 0


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """Imports are done; waiting for the job."""


class Stage(msgspec.Struct, frozen=True, tag="stage"):
    """The candidate reached a state."""

    state: CandidateState


class Checked(msgspec.Struct, frozen=True, tag="checked"):
    """Verdicts of the checks before training, all of which passed unless `Failed` follows."""

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


class Trained(msgspec.Struct, frozen=True, tag="trained"):
    """Training is over, the checkpoint is on disk, the trial now answers the scorer."""

    training: Training


class Scored(msgspec.Struct, frozen=True, tag="scored"):
    """The scorer is done."""

    evaluation: Evaluation


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The candidate ends in `state`; `error` holds the evidence (message, last lines)."""

    state: CandidateState
    error: str


CLASS_NAME = "DeltaNet"
"""The class every architecture file defines, whatever it holds."""

ARCHITECTURE_FILE = "architecture.py"
CHECKPOINT_FILE = "checkpoint.pt"
"""Names in the directory of a `TrialJob`: the candidate's code, and the weights that training leaves."""

TRIAL_UNUSABLE = 3
"""Exit status of a scorer whose trial went away or answered what is no answer."""

Report = Ready | Stage | Checked | Progress | Trained | Scored | Failed

encoder = msgspec.json.Encoder()
decoder = msgspec.json.Decoder(Report)
