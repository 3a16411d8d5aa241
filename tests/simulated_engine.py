"""An engine whose trials are simulated; run by the tests as a process of its own, so that it can be killed.

    python tests/simulated_engine.py LAB EXPERIMENTS [SECONDS_PER_STAGE [HOURS]]

Store, lineage, locks, signals, commands and data are real. What a simulated trial reports is a
function of its label and seed alone, not of how the code is written; some candidates fail.
"""

from __future__ import annotations

import hashlib
import os
import random
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from asi_lab import protocol
from asi_lab.engine import Engine
from asi_lab.engineer.executor import Health, Source
from asi_lab.errors import LabError
from asi_lab.lab import Lab
from asi_lab.protocol import Progress, Report, ScoreJob, TrialJob
from asi_lab.records import CandidateState, Check, Evaluation, TaskResult, Training

S = CandidateState

SALT = 28100
"""With it, of the first five candidates in a lab of seed 3 the second diverges and the fourth is the best,
and in one of seed 1 the first four pass and one of the next two fails."""


WORDS = ("linear", "attention", "keeps", "a", "matrix", "of", "fast", "weights", "by", "the", "delta", "rule")


def make_lab(folder: Path, settings: str, seed: int = 0) -> Lab:
    """A lab with its own small text, ready for an engine; `settings` are the tables behind those of data and
    evaluation."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, text, lab = random.Random(0), folder / "text.txt", Lab(folder / "lab")
    text.write_text("\n\n".join(" ".join(rng.choice(WORDS) for _ in range(400)) + "." for _ in range(60)))
    lab.path.mkdir()
    lab.config.write_text(
        f'preset = "micro"\nseed = {seed}\n[data]\nsource = "text:{text}"\ntokenizer = "byte"\n'
        f'[evaluate]\ntasks = ["asi_recall", "asi_copy"]\nlimit = 4\n{settings}'
    )
    return lab


class SimulatedPair:
    """Reports what a trial and a scorer would, without doing anything."""

    def __init__(self, delay: float) -> None:
        self.delay, self.weights = delay, b""
        self.script: Iterator[tuple[Source, Report]] = iter(())

    def start(self, trial: TrialJob, score: ScoreJob | None, files: Mapping[str, Path]) -> None:
        assert score is not None
        self.script = self._script(trial, score, files)

    def take(self, name: str, destination: Path) -> None:
        destination.write_bytes(self.weights)

    def keep_compiled(self) -> None:
        pass

    def _script(
        self, job: TrialJob, score: ScoreJob, files: Mapping[str, Path]
    ) -> Iterator[tuple[Source, Report]]:
        file = files["architecture.py"]
        name = file.parent.name
        digest = self.weights = hashlib.sha256(f"{SALT}{name}\n{job.seed}".encode()).digest()
        loss = 4.0 + digest[0] / 2560
        if name == os.environ.get("SIMULATED_TOO_GOOD"):
            loss /= 2
        fails = name.isdigit() and digest[1] < 40
        yield "trial", protocol.Ready()
        if job.task == "serve" and files["checkpoint.pt"].read_bytes() != self.weights:
            yield "trial", protocol.Failed(S.BROKEN, "the checkpoint cannot be loaded")
            return
        if job.task != "serve":
            yield "trial", protocol.Checked((Check("causality", True, 0.0, 1e-4),))
            yield "trial", protocol.Stage(S.PREFLIGHTED)
            yield "trial", protocol.Stage(S.TRAINING)
            if job.task == "resume" and files["resume.pt"].read_bytes() != self.weights:
                yield "trial", protocol.Failed(S.BROKEN, "there is nothing to go on from")
                return
            for step in range(3 if job.task == "resume" else 1, 4):
                yield "trial", Progress(step, 3, step * 10, loss + 1 / step, 1e-3, 100.0, 10.0)
                if step == 2:
                    yield "trial", protocol.Saved(step)
            if fails:
                yield "trial", protocol.Failed(S.DIVERGED if digest[2] % 2 else S.LEAKING, "simulated\nfault")
                return
        yield "trial", protocol.Trained(Training(1000 + digest[3], 500, 3, 30, loss, 1.0, 100.0, 10.0))
        tasks = tuple(
            TaskResult(name, 0.3 + digest[4 + i] / 2560, "choice_probability", True, 0.25, 10)
            for i, name in enumerate(score.evaluate.tasks)
        )
        yield "scorer", protocol.Scored(Evaluation(loss, 100, tasks, 0.0, 4, 0.1))

    def poll(self, seconds: float) -> list[tuple[Source, Report]]:
        time.sleep(self.delay)
        report = next(self.script, None)
        return [report] if report else []

    def health(self) -> Health:
        return Health(None, None, 0, 0)

    def said(self, source: Source) -> str:
        return ""

    def finish(self, directory: Path) -> None:
        pass


class SimulatedExecutor:
    """Gives simulated pairs."""

    def __init__(self, delay: float) -> None:
        self.delay = delay

    def prepare(self) -> None:
        pass

    def take(self) -> SimulatedPair:
        return SimulatedPair(self.delay)

    def close(self) -> None:
        pass


class Silent:
    """A view that only speaks when the engine has something to say."""

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def refresh(self, store: object) -> None:
        pass

    def working(self, label: str, stage: str, progress: Progress | None) -> None:
        pass


def main() -> int:
    lab, experiments = Lab(Path(sys.argv[1])), int(sys.argv[2])
    delay = float(sys.argv[3]) if len(sys.argv) > 3 else 0.001
    hours = float(sys.argv[4]) if len(sys.argv) > 4 else None
    try:
        return Engine(lab, Silent(), SimulatedExecutor(delay)).search(experiments, hours)
    except LabError as error:
        print(error, file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
