"""Runs of architectures for studies that need hundreds: trained and scored as a lab does it, in one process.

A run is what a lab measures of an architecture with the seeds of an index (`trials.py`), without the checks,
the sandbox and the processes around it, so it takes code of ours alone. Finished runs are appended to
`results/runs.jsonl`, and a run that is there already is not made again: a study goes on anywhere.
"""

from __future__ import annotations

import os

os.environ |= {"TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}  # before lm-eval

import contextlib
import functools
import hashlib
import multiprocessing
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import msgspec
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from asi_lab.common import process
from asi_lab.common.randomness import keyed_random, keyed_seed
from asi_lab.common.syntax import code_hash
from asi_lab.data.manifest import load_manifest
from asi_lab.data.prepare import prepare
from asi_lab.data.probes import PROBES
from asi_lab.data.tokenizer import Tokenizer
from asi_lab.lab.config import from_preset
from asi_lab.protocol import ARCHITECTURE_FILE, CHECKPOINT_FILE, Compare, ScoreJob, TrialJob
from asi_lab.records import Evaluation
from asi_lab.researcher.grammar import Genome, canonical, render
from asi_lab.researcher.grammar.genome import gated_delta_net_genome, seed_genome
from asi_lab.researcher.grammar.mutate import mutate
from asi_lab.scorer.client import Remote
from asi_lab.scorer.scoring import Scoring
from asi_lab.scorer.tasks.build import build_tasks
from asi_lab.scoring import references
from asi_lab.settings import Settings
from asi_lab.trial.answering import serve
from asi_lab.trial.life import residual_of
from asi_lab.trial.model import LanguageModel, load_architecture
from asi_lab.trial.probes import Seeds, Snapshots, train
from asi_lab.trial.train import checkpoint
from asi_lab.trial.train.job import build_model, prepare_fit
from asi_lab.trial.train.ranks import Alone

RESULTS = Path(__file__).parent / "results" / "runs.jsonl"
DATA = Path(tempfile.gettempdir(), "asi-lab-studies")
CPU = torch.device("cpu")
POSITIONS = 64
"""Positions of a run that are asked for from the bare prefix: honest code has nothing to hide."""


class Wanted(msgspec.Struct, frozen=True):
    """One run: the architecture's name, the scale, the index of its seeds, the seed of the data's order, what
    is otherwise than in the preset (`section.key`), and whether its probes are learnt as well."""

    architecture: str
    scale: str
    index: int
    order: int = 0
    changes: dict[str, Any] = {}
    probes: bool = False


class Run(msgspec.Struct, frozen=True):
    """A finished run. `code` and `settings` are digests of what decides it; loss in nats per token."""

    wanted: Wanted
    code: str
    settings: str
    loss: float
    tasks: dict[str, float]
    params: int
    seconds: float


def grammar_names(count: int) -> list[str]:
    """Names of architectures that the grammar makes, a few mutations or many away from DeltaNet and
    from Gated DeltaNet in turn."""
    return [f"grammar_{number:02d}" for number in range(1, count + 1)]


@functools.cache
def source(architecture: str) -> str:
    """The code of a reference, or of one of `grammar_names`."""
    if not architecture.startswith("grammar_"):
        return references.source(architecture)
    return render(_genome(int(architecture.removeprefix("grammar_"))), architecture)


def _genome(number: int) -> Genome:
    rng = keyed_random(19, number, "study")
    genome = gated_delta_net_genome() if number % 2 else seed_genome()
    for _ in range(1 + number // 3):
        genome = canonical(mutate(genome, rng, {genome}))
    return genome


def settings_of(wanted: Wanted) -> Settings:
    """The settings of a run."""
    settings = from_preset(wanted.scale)
    for key, value in wanted.changes.items():
        section, name = key.split(".")
        part = msgspec.structs.replace(getattr(settings, section), **{name: value})
        settings = msgspec.structs.replace(settings, **{section: part})
    if not wanted.probes:
        evaluate = msgspec.structs.replace(settings.evaluate, probes=())
        settings = msgspec.structs.replace(settings, evaluate=evaluate)
    return msgspec.structs.replace(settings, device="cpu", seed=wanted.order)


def digest(settings: Settings) -> str:
    """What of the settings decides a run."""
    train = msgspec.structs.replace(settings.train, threads=0, save_minutes=0.0)
    found = msgspec.json.encode((settings.model, train, settings.data, settings.evaluate.loss_tokens))
    return hashlib.sha256(found).hexdigest()[:12]


def finished() -> list[Run]:
    """All runs whose code and settings are those of today, each once."""
    lines = RESULTS.read_bytes().splitlines() if RESULTS.exists() else []
    runs = [run for run in map(_decoded, lines) if (run.code, run.settings) == _key(run.wanted)]
    return [*{_identity(run.wanted): run for run in runs}.values()]


def missing(wanted: Sequence[Wanted]) -> list[Wanted]:
    """Those that are not finished, in order."""
    have = {_identity(run.wanted) for run in finished()}
    return [run for run in wanted if _identity(run) not in have]


def _identity(wanted: Wanted) -> tuple[Any, ...]:
    """What makes a run the same as another, in whatever words it was asked for."""
    asked = wanted.architecture, wanted.scale, wanted.index, wanted.order, wanted.probes
    return *asked, *_key(wanted)


def _decoded(line: bytes) -> Run:
    return msgspec.json.decode(line, type=Run)


@functools.cache
def _known_references() -> frozenset[str]:
    return frozenset(references.names())


def _key(wanted: Wanted) -> tuple[str, str]:
    known = wanted.architecture.startswith("grammar_") or wanted.architecture in _known_references()
    return code_hash(source(wanted.architecture)) if known else "", digest(settings_of(wanted))


def make(wanted: Sequence[Wanted], workers: int) -> None:
    """Make the runs that are missing, in order, `workers` at a time."""
    due = missing(wanted)
    print(f"{len(wanted) - len(due)} of {len(wanted)} runs are there", flush=True)
    for scale in dict.fromkeys(run.scale for run in due):
        prepared(from_preset(scale))
    if not due:
        return
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(due)), fresh, process.die_with_parent) as pool:
        for done in as_completed(pool.submit(_measured, run) for run in due):
            try:
                run = done.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
            with RESULTS.open("ab") as file:
                file.write(msgspec.json.encode(run) + b"\n")
            print(f"{run.wanted} {run.loss:.4f} in {run.seconds:.0f} s", flush=True)


def prepared(settings: Settings) -> Path:
    """The data of a scale, made once on this machine."""
    folder = DATA / hashlib.sha256(msgspec.json.encode(settings.data)).hexdigest()[:12]
    prepare(settings.data, folder / "data")
    data = folder / "data"
    build_tasks(data, data / "tasks", 0, settings.evaluate.limit, Tokenizer.load(data))
    return data


def _measured(wanted: Wanted) -> Run:
    began = time.perf_counter()
    settings, code = settings_of(wanted), source(wanted.architecture)
    data = DATA / hashlib.sha256(msgspec.json.encode(settings.data)).hexdigest()[:12] / "data"
    torch.set_num_threads(1)
    process.tune_allocator()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        Path(ARCHITECTURE_FILE).write_text(code, encoding="utf-8")
        job = TrialJob.of(
            settings,
            "train",
            data=str(data),
            vocab_size=load_manifest(data).vocab_size,
            seed=keyed_seed(0, wanted.architecture, wanted.index, "init"),
            shared_seed=keyed_seed(0, wanted.index, "shared"),
        )
        layer = load_architecture(Path(ARCHITECTURE_FILE).absolute())
        model = build_model(layer, job, CPU)
        prepare_fit(model, job, Alone()).run()
        model.eval()
        checkpoint.save_trained(model, Path(CHECKPOINT_FILE))
        snapshots = Snapshots(layer, CPU)
        seeds = Seeds(job.seed, job.shared_seed, wanted.order)
        for probe in (PROBES[name] for name in settings.evaluate.probes):
            for step, learnt in zip(probe.marks, train(layer, probe, CPU, seeds), strict=True):
                snapshots.keep(probe, step, learnt)
        found = _evaluated(model, snapshots, settings, data)
        os.chdir("/")
    scores = {task.task: task.score for task in found.tasks}
    seconds = time.perf_counter() - began
    return Run(wanted, *_key(wanted), found.loss, scores, model.parameter_counts()[0], round(seconds, 1))


def _evaluated(model: LanguageModel, snapshots: Snapshots, settings: Settings, data: Path) -> Evaluation:
    scoring = Scoring(
        ScoreJob(
            data=str(data),
            data_seed=0,
            device="cpu",
            train_context=settings.train.context,
            model=settings.model,
            evaluate=settings.evaluate,
            threads=1,
        )
    )
    with _answering(model, snapshots) as (reader, writer):
        remote = Remote(reader, writer, settings.model)
        scoring.score(remote, Path(CHECKPOINT_FILE))
        found = scoring.compare(remote, Compare(POSITIONS, POSITIONS, 0))
        remote.go_on()
    return found


@contextlib.contextmanager
def _answering(model: LanguageModel, snapshots: Snapshots) -> Iterator[tuple[Any, Any]]:
    """A thread that answers for the model and its probes, and the ends of its pipes."""
    (asked, ask), (answers, answer) = os.pipe(), os.pipe()
    residual = residual_of(model, CPU)
    with contextlib.ExitStack() as stack:
        ends = [
            stack.enter_context(os.fdopen(descriptor, mode, buffering=buffering))
            for descriptor, mode, buffering in ((asked, "rb", -1), (answer, "wb", 0))
        ]
        mine = [
            stack.enter_context(os.fdopen(descriptor, mode, buffering=buffering))
            for descriptor, mode, buffering in ((answers, "rb", -1), (ask, "wb", 0))
        ]
        told = {"snapshot": snapshots.residual}
        thread = threading.Thread(target=serve, args=(residual, *ends), kwargs=told)
        thread.start()
        yield mine[0], mine[1]
        thread.join()


def by_architecture(runs: Iterable[Run]) -> Mapping[str, list[Run]]:
    """Runs by architecture, in order of index."""
    found: dict[str, list[Run]] = {}
    for run in sorted(runs, key=lambda run: run.wanted.index):
        found.setdefault(run.wanted.architecture, []).append(run)
    return found
