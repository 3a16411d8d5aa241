"""Turns candidates and baselines into trials, and their reports into records."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np

from asi_lab import protocol, references
from asi_lab.baselines import SEED_ARCHITECTURE, UPPER_REFERENCE, Baselines
from asi_lab.control import StopNow
from asi_lab.engineer.executor import Executor
from asi_lab.engineer.run import run
from asi_lab.errors import TrialError
from asi_lab.lab import Lab
from asi_lab.protocol import ARCHITECTURE_FILE, CHECKPOINT_FILE, Progress, Report, ScoreJob, TrialJob
from asi_lab.randomness import keyed_seed
from asi_lab.records import BaselineRun, Candidate, CandidateState, Check, Evidence
from asi_lab.settings import Settings
from asi_lab.store import Store

Advance = Callable[..., Candidate]
"""Record that a candidate came to a state, with changes of other fields; returns the new record."""


class Watch(Protocol):
    """What is told while a trial runs."""

    def working(self, label: str, stage: str, progress: Progress | None) -> None:
        """Trial `label` is in `stage`; `progress` is its latest point while it trains."""

    def tick(self) -> None:
        """Called a few times a second; may raise `StopNow`."""


class Trials:
    """Runs trials of one lab, one after the other."""

    def __init__(self, lab: Lab, settings: Settings, store: Store, executor: Executor, watch: Watch) -> None:
        self.lab, self.settings, self.store = lab, settings, store
        self.executor, self.watch = executor, watch
        self.reference_code = (references.source(SEED_ARCHITECTURE), references.source(UPPER_REFERENCE))

    def candidate(
        self, candidate: Candidate, baselines: Baselines, advance: Advance
    ) -> tuple[Candidate, Evidence]:
        """Run a candidate's trial; returns its record as it then stands, and the whole evidence.

        A trial that was cut off starts over, except that a trained checkpoint is only evaluated.
        """
        assert candidate.proposal is not None
        directory = self._directory(f"{candidate.id:04d}", candidate.proposal.code)
        trained = candidate.state is CandidateState.TRAINED and (directory / CHECKPOINT_FILE).exists()
        state = CandidateState.TRAINED if trained else CandidateState.CHECKED
        standing = advance(candidate, state, starts=candidate.starts + 1)
        checks: tuple[Check, ...] = ()

        def observe(report: Report) -> None:
            nonlocal standing, checks
            if isinstance(report, protocol.Checked):
                checks = report.checks
            elif isinstance(report, protocol.Stage):
                standing = advance(standing, report.state)
            elif isinstance(report, protocol.Trained) and not trained:
                evidence = standing.evidence or Evidence()
                whole = msgspec.structs.replace(
                    evidence, checks=evidence.checks + checks, training=report.training
                )
                standing = advance(standing, CandidateState.TRAINED, evidence=whole)

        job = self._job(directory, keyed_seed(self.settings.seed, candidate.id, "init"), trained, baselines)
        try:
            evidence = self._run(f"{candidate.id:04d}", job, observe, standing.evidence)
        except StopNow:
            advance(standing, standing.state, starts=candidate.starts)
            raise
        return standing, evidence

    def baseline(self, architecture: str, index: int) -> None:
        """Measure one seed of a baseline and record it.

        Raises:
            TrialError: it failed, which no candidate is to blame for.
        """
        label = f"{architecture}-seed{index}"
        code = dict(zip((SEED_ARCHITECTURE, UPPER_REFERENCE), self.reference_code, strict=True))[architecture]
        seed = keyed_seed(self.settings.seed, architecture, index, "init")
        job = self._job(self._directory(label, code), seed, False, None)
        evidence = self._run(label, job, lambda report: None, None)
        if evidence.evaluation is None:
            state = evidence.failure.value if evidence.failure else "no result"
            raise TrialError(
                f"Baseline {architecture}, seed {index}: expected a loss; found {state}: {evidence.error}\n"
                f"The logs are in {job.directory}. Nothing can be scored without baselines."
            )
        run_record = BaselineRun(architecture, index, evidence)
        message = f"baseline {architecture} seed {index}: loss {evidence.evaluation.loss:.4f}"
        self.store.put_baseline(run_record, ("baseline_measured", message, {"label": label}))
        self._discard_weights(label)

    def discard_weights(self, candidate_id: int | None) -> None:
        """Remove the checkpoint of a candidate that will not be asked again, unless all are to be kept."""
        if candidate_id is not None:
            self._discard_weights(f"{candidate_id:04d}")

    def _discard_weights(self, label: str) -> None:
        if self.settings.limits.checkpoints == "best":
            (self.lab.trial(label) / CHECKPOINT_FILE).unlink(missing_ok=True)

    def _directory(self, label: str, code: str) -> Path:
        directory = self.lab.trial(label)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / ARCHITECTURE_FILE).write_text(code, encoding="utf-8")
        return directory

    def _job(self, directory: Path, seed: int, resume: bool, baselines: Baselines | None) -> TrialJob:
        settings = self.settings
        return TrialJob(
            directory=str(directory),
            data=str(self.lab.data),
            seed=seed,
            data_seed=settings.seed,
            device=settings.device,
            model=settings.model,
            train=settings.train,
            limits=settings.limits,
            baseline_params=baselines.anchor(SEED_ARCHITECTURE).params if baselines else 0,
            resume=resume,
        )

    def _run(
        self, label: str, job: TrialJob, observe: Callable[[Report], None], before: Evidence | None
    ) -> Evidence:
        """Run one job; its curve goes to the store as it comes."""
        settings = self.settings
        tasks = tuple(_task(name, self.lab.path) for name in settings.evaluate.tasks)
        score = ScoreJob(
            data=str(self.lab.data),
            data_seed=settings.seed,
            device=settings.device,
            train_context=settings.train.context,
            evaluate=msgspec.structs.replace(settings.evaluate, tasks=tasks),
            threads=settings.train.threads,
        )
        if not job.resume:
            self.store.drop_series(label)
        curve = _Curve(self.store, label)

        def look(report: Report) -> None:
            if isinstance(report, Progress):
                curve.add(report)
                self.watch.working(label, "training", report)
            elif isinstance(report, protocol.Stage):
                self.watch.working(label, report.state.value, None)
                self.executor.prepare()
            elif isinstance(report, protocol.Trained):
                curve.flush()
                self.watch.working(label, "evaluation", None)
            observe(report)

        self.watch.working(label, "checks", None)
        try:
            return run(self.executor.take(), job, score, look, self.watch.tick, before)
        finally:
            curve.flush()


def _task(name: str, lab: Path) -> str:
    """A task as the scorer takes it: folders of task YAML are relative to the lab."""
    is_folder = "/" in name or name.startswith((".", "~"))
    return str((lab / Path(name).expanduser()).resolve()) if is_folder else name


class _Curve:
    """Collects points of a training curve and writes them about once a second."""

    def __init__(self, store: Store, label: str) -> None:
        self.store, self.label = store, label
        self.rows: list[Sequence[float]] = []
        self.started = self.flushed = time.monotonic()

    def add(self, p: Progress) -> None:
        now = time.monotonic()
        self.rows.append(
            (p.step, p.tokens, p.loss, p.learning_rate, p.tokens_per_second, p.memory_mb, now - self.started)
        )
        if now - self.flushed > 1.0:
            self.flush()

    def flush(self) -> None:
        if self.rows:
            self.store.append_series(self.label, np.asarray(self.rows, dtype=np.float32))
        self.rows, self.flushed = [], time.monotonic()
