"""An engine whose trials are simulated; run by the tests as a process of its own, so that it can be killed.

    python tests/simulated_engine.py LAB EXPERIMENTS|verify [SECONDS_PER_STAGE [HOURS]]

Store, lineage, locks, signals and commands are real, and so are data where none are made yet. What a
simulated trial reports is a function of its label and seed alone, not of how the code is written; some
candidates fail. All that is timed, and the memory, is another figure in every run.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec
import tomlkit

from asi_lab import protocol
from asi_lab.common.process import run_module
from asi_lab.engine import Engine
from asi_lab.engineer.executor import Health, Source
from asi_lab.errors import LabError
from asi_lab.lab import Lab, preparing
from asi_lab.protocol import Command, Progress, Report, ScoreJob, ServeJob, TrialJob
from asi_lab.records import CandidateState, Check, Evaluation, HeldOut, TaskResult, Training, Work
from asi_lab.settings import Data

S = CandidateState

SALT = 28100
"""With it, of the first five candidates in a lab of seed 3 the second diverges and the fourth is the best,
and in one of seed 1 the first four pass and one of the next two fails."""


def _run_module(module: str, arguments: list[str], tick: Callable[[], None]) -> list[str]:
    """As the engine's own, but data that are made are not looked at, which takes seconds."""
    made = Path(arguments[0], "tasks", "origin.json").exists()
    return [] if made else run_module(module, arguments, tick)


preparing.run_module = _run_module

WORDS = ("linear", "attention", "keeps", "a", "matrix", "of", "fast", "weights", "by", "the", "delta", "rule")


def make_lab(folder: Path, settings: str, seed: int = 0, prepared: bool = True) -> Lab:
    """A lab of a small text, ready for an engine, with its data made unless they are to be its engine's work;
    `settings` are the tables beside those of data and evaluation."""
    lab = Lab(folder / "lab")
    lab.path.mkdir(parents=True)
    table = {
        "preset": "micro",
        "seed": seed,
        "search": {"slots": 1},
        "data": {"source": f"text:{_shared() / 'text.txt'}", "tokenizer": "byte"},
        "train": {"steps": 3, "warmup_steps": 1},
        "evaluate": {"tasks": ["asi_recall", "asi_copy"], "probes": [], "limit": 4, "marks": [0.5]},
    }
    for name, section in tomlkit.parse(settings).unwrap().items():
        table[name] = table.get(name, {}) | section
    lab.config.write_text(tomlkit.dumps(table))
    if prepared:
        made = lab.settings()
        shutil.copytree(_data(made.data, made.seed, made.evaluate.limit), lab.data)
    return lab


@functools.cache
def _shared() -> Path:
    """A folder of this process, with a text."""
    rng, folder = random.Random(0), Path(tempfile.mkdtemp(prefix="simulated-"))
    atexit.register(shutil.rmtree, folder)
    paragraphs = (" ".join(rng.choice(WORDS) for _ in range(400)) + "." for _ in range(60))
    (folder / "text.txt").write_text("\n\n".join(paragraphs))
    return folder


@functools.cache
def _data(data: Data, seed: int, limit: int) -> Path:
    """Data and tasks as an engine would make them, made once."""
    folder = _shared() / f"data{len(list(_shared().iterdir()))}"
    made = {"asi_lab.data.prepare": [msgspec.json.encode(data).decode()]}
    made["asi_lab.scorer.tasks.build"] = [str(seed), str(limit)]
    for helper, arguments in made.items():
        command = [sys.executable, "-m", helper, str(folder), *arguments]
        subprocess.run(command, check=True, capture_output=True)
    return folder


def weather() -> float:
    """A figure that the machine and its other work decide: where weather is asked for, up to twice as much in
    one run as in another."""
    return random.SystemRandom().uniform(1.0, 2.0) if "SIMULATED_WEATHER" in os.environ else 1.0


def weights(content: bytes, params: int) -> bytes:
    """A safetensors file of so many elements, which begin with `content`."""
    header = {"all": {"dtype": "F32", "shape": [params], "data_offsets": [0, 4 * params]}}
    text = msgspec.json.encode(header)
    return struct.pack("<Q", len(text)) + text + content.ljust(4 * params, b"\1")


class SimulatedTrio:
    """Reports what a trial, a server and a scorer would, without doing anything."""

    at_work = "trial"

    def __init__(self, delay: float) -> None:
        self.delay, self.weights = delay, b""
        self.script: Iterator[tuple[Source, Report]] = iter(())
        self.order: Command | None = None
        self.exit: int | None = None
        self.is_over = False

    def start(self, trial: TrialJob, score: ScoreJob | None, files: Mapping[str, Path]) -> None:
        assert score is not None
        self.script = self._script(trial, score, files)

    def tell(self, order: Command) -> None:
        self.order = order

    def serve(self, job: ServeJob, files: Mapping[str, Path]) -> None:
        self.at_work = "server"

    def take(self, name: str, destination: Path, pulse: Callable[[], object]) -> None:
        destination.write_bytes(self.weights)

    def keep_compiled(self) -> None:
        pass

    def _script(
        self, job: TrialJob, score: ScoreJob, files: Mapping[str, Path]
    ) -> Iterator[tuple[Source, Report]]:
        name = file_name(files)
        digest = hashlib.sha256(f"{SALT}{name}\n{job.seed}".encode()).digest()
        self.weights = weights(digest, 1000 + digest[3])
        loss = 4.0 + digest[0] / 2560
        if name == os.environ.get("SIMULATED_TOO_GOOD"):
            loss /= 2
        if name.startswith(tuple(os.environ.get("SIMULATED_BETTER", "nobody").split())):
            loss -= 0.2
        fails = (name.isdigit() and digest[1] < 40) or name in os.environ.get("SIMULATED_FAILING", "").split()
        yield "trial", protocol.Ready()
        if job.task == "serve":
            if files["checkpoint.safetensors"].read_bytes() != self.weights:
                yield "trial", protocol.Failed(S.BROKEN, "the checkpoint cannot be loaded")
                return
            yield "trial", protocol.Loaded()
        else:
            yield from self._training(job, files, loss)
            if self.is_over:
                return
            if fails:
                yield "trial", protocol.Failed(S.DIVERGED if digest[2] % 2 else S.LEAKING, "simulated\nfault")
                return
            yield (
                "trial",
                protocol.Checked(passed(*(protocol.TRAINED + name for name in protocol.LEAK_CHECKS))),
            )
            tokens = job.train.steps * job.train.batch * job.train.context
            figures = weather(), 100.0 * weather(), 10.0 * weather()
            yield "trial", protocol.Trained(Training(1000, 500, job.train.steps, tokens, loss, *figures))
        for probe in job.probes:
            assert not isinstance(self.order, protocol.ScoreWhole)
            yield "trial", protocol.Probed(probe)
        assert isinstance(self.order, protocol.ScoreWhole)
        yield "scorer", protocol.Answered()
        assert self.at_work == "server"
        yield "server", protocol.Ready()
        yield "server", protocol.Counted(Work(1e6 + 1e3 * digest[5], 1e5 + 1e2 * digest[6]))
        assert isinstance(self.order, protocol.Compare)
        tasks = tuple(
            TaskResult(name, 0.3 + digest[4 + i] / 2560, "choice_probability", True, 0.25, 10)
            for i, name in enumerate((*score.evaluate.tasks, *score.evaluate.probes))
        )
        yield "scorer", protocol.Scored(Evaluation(loss, 100, tasks, prefix_positions=4, seconds=weather()))

    def _training(
        self, job: TrialJob, files: Mapping[str, Path], loss: float
    ) -> Iterator[tuple[Source, Report]]:
        yield "trial", protocol.Checked(passed(*protocol.PREFLIGHT_CHECKS))
        yield "trial", protocol.Stage(S.PREFLIGHTED)
        yield "trial", protocol.Stage(S.TRAINING)
        if file_name(files) == os.environ.get("SIMULATED_KILLED"):
            self.exit, self.is_over = -signal.SIGKILL, True
            return
        if job.task == "resume" and files["resume.pt"].read_bytes() != self.weights:
            self.is_over = True
            yield "trial", protocol.Failed(S.BROKEN, "there is nothing to go on from")
            return
        steps, each = job.train.steps, job.train.batch * job.train.context
        for step in protocol.curve_steps(steps, 2 if job.task == "resume" else 0):
            yield "trial", Progress(step, steps, step * each, loss + 1 / step, 1e-3, 100.0 * weather(), 10.0)
            if step in job.marks:
                yield "trial", protocol.AtMark(step)
                assert self.order == protocol.MeasureMark(step)
                yield "scorer", protocol.Measured(HeldOut(step, loss + 1 / step, seconds=0.0))
            if step == 2:
                yield "trial", protocol.Saved(step)

    def poll(self, seconds: float) -> list[tuple[Source, Report]]:
        time.sleep(self.delay)
        report = next(self.script, None)
        return [report] if report else []

    def health(self) -> Health:
        return Health(self.at_work, self.exit, None, said_all=self.exit is not None)

    def cpu_seconds(self) -> float:
        return 10.0 * weather() if "SIMULATED_WEATHER" in os.environ else 0.0

    def said(self, source: Source) -> str:
        return ""

    def finish(self, directory: Path) -> None:
        pass


def file_name(files: Mapping[str, Path]) -> str:
    """The label of the trial that these files are for."""
    return files["architecture.py"].parent.name


def passed(*names: str) -> tuple[Check, ...]:
    """Verdicts of these checks, all good."""
    timed = tuple(Check(name, True, 0.0, 1e-4, seconds=weather()) for name in names)
    return tuple(msgspec.structs.replace(c, value=weather()) if c.name == "cost" else c for c in timed)


class SimulatedExecutor:
    """Gives simulated trios."""

    def __init__(self, delay: float) -> None:
        self.delay = delay

    def prepare(self) -> None:
        pass

    def take(self) -> SimulatedTrio:
        return SimulatedTrio(self.delay)

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
    lab = Lab(Path(sys.argv[1]))
    delay = float(sys.argv[3]) if len(sys.argv) > 3 else 0.001
    hours = float(sys.argv[4]) if len(sys.argv) > 4 else None
    try:
        simulated = Engine(lab, Silent(), SimulatedExecutor(delay))
        if sys.argv[2] == "verify":
            return simulated.verify((), hours)
        return simulated.search(int(sys.argv[2]), hours)
    except KeyboardInterrupt:  # as the program itself has it, where the engine listens no longer
        return 130
    except LabError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # likewise


if __name__ == "__main__":
    sys.exit(main())
