"""Turns candidates and baselines into trials, and their reports into records."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from asi_lab import protocol
from asi_lab.common import trust
from asi_lab.common.randomness import keyed_seed
from asi_lab.data import probes, taskcode
from asi_lab.data.manifest import load_manifest
from asi_lab.engineer import resume, supervise
from asi_lab.engineer.contract import check_source
from asi_lab.engineer.monitor import Expectations, Expected
from asi_lab.engineer.slots import Slots
from asi_lab.engineer.supervise import Observe
from asi_lab.errors import TrialError
from asi_lab.events import EventKind, Watch
from asi_lab.lab import Lab, Store, choice, fresh, run_label, spending, trial_label
from asi_lab.lab.rungs import Rung
from asi_lab.lab.states import States
from asi_lab.protocol import (
    ARCHITECTURE_FILE,
    CHECKPOINT_FILE,
    PROBE_FILES,
    Compare,
    HeldOutText,
    Progress,
    Report,
    ScoreJob,
    TrialJob,
    probe_file,
)
from asi_lab.records import BaselineRun, Candidate, CandidateState, Evidence, Run
from asi_lab.scoring import pruning, references
from asi_lab.scoring.baselines import Baselines, has_failed, may_be_left_out
from asi_lab.settings import Settings, Train

SUSPECT_NOISE = 2.0
"""Noise floors below the leak rule's bound before a loss at a mark is suspect."""

MOST_CUTS = 10
"""So many times as often as without getting on may a trial be cut off in all."""

MANY = 16_384
"""Positions that are compared of a candidate that would lead its lab, where all would cost too much."""

PASSES = 3
"""Passes over a token in training: one forward, and the work of two backward."""


class Trials:
    """Runs trials of one lab at one scale. Every method may be called from several threads, each of them in a
    slot."""

    def __init__(self, lab: Lab, rung: Rung, store: Store, slots: Slots, watch: Watch) -> None:
        self.lab, self.rung, self.settings, self.store = lab, rung, rung.settings, store
        self.slots, self.watch, self.states = slots, watch, States(store)

    def candidate(
        self, candidate: Candidate, baselines: Baselines, prune_above: pruning.Limits
    ) -> tuple[Candidate, Evidence]:
        """Run a candidate's trial; returns its record as it then stands, and the whole evidence.

        `prune_above` are the limits at the marks, empty where it may not be pruned. A trial that was cut off
        goes on from its last checkpoint, or starts over where it had none; what was trained is only
        evaluated. One that was killed from outside ends as interrupted.
        """
        directory = self._directory(trial_label(candidate.id), candidate.code)
        trained = candidate.state is CandidateState.TRAINED and (directory / CHECKPOINT_FILE).exists()
        before = candidate.evidence if trained else None
        before = before or Evidence(check_source(candidate.code), prunable=bool(prune_above))
        state = CandidateState.TRAINED if trained else CandidateState.CHECKED
        standing = self.states.advance(candidate, state, evidence=before)

        def observe(report: Report, evidence: Evidence) -> None:
            nonlocal standing
            if isinstance(report, protocol.Stage):
                standing = self.states.advance(standing, report.state)
            elif isinstance(report, protocol.Saved) and standing.starts:
                standing = self.states.advance(
                    standing, standing.state, starts=0
                )  # it gets on, so it may be cut off again
            elif isinstance(report, protocol.Trained):
                standing = self.states.advance(standing, CandidateState.TRAINED, evidence=evidence)

        job = self._serve_job(directory, candidate.id) if trained else self._job("train", candidate.id)
        expected = self._expectations(baselines, prune_above)
        began = time.monotonic()
        evidence = self._run(directory, job, observe, before, expected, candidate.id)
        if evidence.failure is CandidateState.INTERRUPTED:
            standing = self._cut_off(standing, time.monotonic() - began, evidence)
        return standing, evidence

    def _cut_off(self, standing: Candidate, seconds: float, evidence: Evidence) -> Candidate:
        """Count that its trial was cut off, while this engine lived."""
        self.store.append_events(("warning", f"{standing.name}: {evidence.error}", {}))
        return self.states.advance(
            standing,
            standing.state,
            starts=standing.starts + 1,
            cuts=standing.cuts + 1,
            trial_seconds=standing.trial_seconds + seconds,
        )

    def may_begin(self, candidate: Candidate) -> bool:
        """Whether a candidate may have another trial, as often and as long as it was cut off."""
        search, limits = self.settings.search, self.settings.limits
        return (
            candidate.starts < search.max_starts
            and candidate.cuts < MOST_CUTS * search.max_starts
            and candidate.trial_seconds < search.max_starts * limits.trial_seconds
        )

    def thoroughly(self, candidate: Candidate, evidence: Evidence) -> tuple[Candidate, Evidence]:
        """Score a trained candidate again, its answers compared at all positions of the loss where that
        costs less than its training, and else at `MANY`.

        Returns its record as it then stands, and the evidence that is given, with a failure where an answer
        differs, the trial was cut off too often, or the weights are lost (then as interrupted).
        """
        directory = self._directory(trial_label(candidate.id), candidate.code)
        job = self._serve_job(directory, candidate.id)
        lost = not (directory / CHECKPOINT_FILE).exists()
        found = Evidence(failure=CandidateState.INTERRUPTED, error="its weights are lost" if lost else "")
        while not lost and self.may_begin(candidate):
            began = time.monotonic()
            found = self._run(
                directory, job, _nobody, evidence, Expectations(), candidate.id, compare=self._at_many
            )
            if found.failure is not CandidateState.INTERRUPTED:
                break
            candidate = self._cut_off(candidate, time.monotonic() - began, found)
        return candidate, msgspec.structs.replace(evidence, failure=found.failure, error=found.error)

    @property
    def _at_many(self) -> Compare:
        """All positions of the loss where that costs less than training, and else `MANY`."""
        train, evaluate = self.settings.train, self.settings.evaluate
        positions = evaluate.loss_tokens // train.context * train.context
        prefix_tokens = positions * (train.context + 1) / 2
        cheap = prefix_tokens < PASSES * train.steps * train.batch * train.context
        return Compare(positions if cheap else MANY, task_positions=MANY, probe_positions=MANY)

    def baseline(self, run: Run) -> None:
        """Measure a run that a search begins with, and record it as a baseline, also where it failed.

        Raises:
            TrialError: nothing can be scored without it, or it was cut off from outside.
        """
        found = self.reference(run)
        if not found.failure:
            return
        words = f"Baseline {run.words}: expected a loss; found {found.failure}"
        if not (has_failed(found) and may_be_left_out(found)):
            raise TrialError(
                f"{words}\nThe logs are in {self.lab.trial(run_label(*run))}. Nothing can be scored without "
                "baselines."
            )
        message = f"{words}. {run.architecture} is left out of this lab's references"
        self.store.append_events(("warning", message, {}))

    def reference(self, run: Run) -> BaselineRun:
        """Measure a run of a reference and record it, also where it fails."""
        label = run_label(*run)
        directory = self._directory(label, references.source(run.architecture))
        job = self._job("train", run.architecture, run.seed_index)
        job = msgspec.structs.replace(job, train=at_rate(job.train, run.rate))
        evidence = _with_an_end(self._whole_run(directory, job))
        found = BaselineRun(run.architecture, run.seed_index, evidence, run.rate)
        kind: EventKind
        if found.failure:
            kind, words = "warning", f"{run.words} failed: {found.failure}. The logs are in {directory}"
        elif found.is_baseline:
            kind, words = "baseline_measured", f"baseline {run.words}: loss {evidence.measured.loss:.4f}"
        else:
            kind, words = "note", f"{run.words}: loss {evidence.measured.loss:.4f}"
        self.store.put_baseline(found, (kind, words, {"label": label}))
        self._discard_weights(label)
        return found

    def further_seeds(self, runs: Sequence[tuple[str, int]]) -> None:
        """Measure further seeds of the baselines (architecture, index) in the slots, and wait for them."""
        for architecture, index in runs:
            work = functools.partial(self.further_seed, architecture, index)
            self.slots.begin(run_label(architecture, index), work)
        self.slots.wait()

    def further_seed(self, architecture: str, index: int) -> None:
        """As `baseline`, where the search has all it needs: a failure is told, and no more."""
        try:
            self.reference(Run(architecture, index))
        except TrialError as error:
            self.store.append_events(("warning", f"a further seed was not measured: {error}", {}))

    def repeat(self, candidate: Candidate, index: int) -> Evidence:
        """Train and evaluate a candidate again, with the seed of that index; nothing cuts it short but
        the limits, and its weights are not kept."""
        label = run_label(trial_label(candidate.id), index)
        directory = self._directory(label, candidate.code)
        evidence = self._whole_run(directory, self._job("train", candidate.id, index), candidate.id)
        self._discard_weights(label)
        return evidence

    def fresh(self, run: Run, code: str, candidate_id: int | None) -> Evidence:
        """Train and evaluate with a seed and an order of the data that no other run has: a candidate, or a
        reference where there is no id. What is measured on is the text kept for claims, but for runs of
        tuning. The first counted run of a candidate is compared at as many positions as one that would lead
        its lab."""
        who, index = f"{run.architecture}-fresh", run.seed_index
        directory = self._directory(fresh.label(run, self.rung.name), code)
        job = self._job("train", who, index)
        job = msgspec.structs.replace(
            job,
            train=at_rate(job.train, run.rate),
            shared_seed=keyed_seed(self.settings.seed, who, index, "shared"),
            data_seed=keyed_seed(self.settings.seed, who, index, "order"),
        )
        text: HeldOutText = "search" if run.is_tuning else "claims"
        strict = candidate_id is not None and run.seed_index == 0
        compare = self._at_many if strict else supervise.DRAWN
        evidence = _with_an_end(self._whole_run(directory, job, candidate_id, text, compare))
        self._discard_weights(directory.name)
        return evidence

    def _whole_run(
        self,
        directory: Path,
        job: TrialJob,
        candidate_id: int | None = None,
        text: HeldOutText = "search",
        compare: Compare = supervise.DRAWN,
    ) -> Evidence:
        """A trial without limits of pruning; begun again where it was killed from outside."""
        where = directory, job, _nobody, None, Expectations(), candidate_id, compare, text
        for _ in range(self.settings.search.max_starts):
            evidence = self._run(*where)
            if evidence.failure is not CandidateState.INTERRUPTED:
                break
        return evidence

    def discard_weights(self, candidate_id: int | None) -> None:
        """Remove the checkpoint of a candidate that will not be asked again, unless all are to be kept."""
        if candidate_id is not None:
            self._discard_weights(trial_label(candidate_id))

    def _discard_weights(self, label: str) -> None:
        if self.settings.limits.checkpoints == "best":
            for path in (self.lab.trial(label) / CHECKPOINT_FILE, *self.lab.trial(label).glob(PROBE_FILES)):
                path.unlink(missing_ok=True)

    def _directory(self, label: str, code: str) -> Path:
        directory = self.lab.trial(label)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / ARCHITECTURE_FILE).write_text(code, encoding="utf-8")
        return directory

    def _job(self, task: Literal["train", "serve"], who: int | str, index: int = 0) -> TrialJob:
        """The job of a candidate or of a reference (`who`), with the seeds of that index: those of its own
        layers, and those of what is around them, the same for all."""
        settings = self.settings
        return TrialJob.of(
            settings,
            task,
            data=str(self.rung.data),
            vocab_size=self._vocab_size(),
            seed=keyed_seed(settings.seed, who, index, "init"),
            shared_seed=keyed_seed(settings.seed, index, "shared"),
            marks=mark_steps(settings),
        )

    def _serve_job(self, directory: Path, candidate_id: int) -> TrialJob:
        """The job to evaluate what is trained, and to train the probes that were cut off before they were."""
        names = self.settings.evaluate.probes
        cut_off = tuple(
            name
            for name in names
            if not all((directory / probe_file(name, step)).exists() for step in probes.PROBES[name].marks)
        )
        return msgspec.structs.replace(self._job("serve", candidate_id), probes=cut_off)

    def _vocab_size(self) -> int:
        return load_manifest(self.rung.data).vocab_size

    def _score_job(self, expected: Expectations, text: HeldOutText) -> ScoreJob:
        """The scorer's job; a candidate is suspect where its loss is as low as the paper's leak rule says."""
        settings = self.settings
        named = settings.evaluate.tasks + (settings.verify.tasks if text == "claims" else ())
        tasks = tuple(taskcode.resolve(name, self.lab.path) for name in named)
        copies = choice.copies(settings, self.lab.path)
        margin = 1 - settings.fitness.leak
        return ScoreJob(
            data=str(self.rung.data),
            data_seed=settings.seed,
            device=settings.device,
            train_context=settings.train.context,
            model=settings.model,
            evaluate=msgspec.structs.replace(settings.evaluate, tasks=tasks, datasets=copies),
            suspect_below={
                step: mark.loss * margin - SUSPECT_NOISE * mark.noise for step, mark in expected.marks.items()
            },
            threads=settings.train.threads,
            consented=tuple(trust.granted().tasks),
            text=text,
        )

    def _run(
        self,
        directory: Path,
        job: TrialJob,
        observe: Observe,
        before: Evidence | None,
        expected: Expectations,
        candidate_id: int | None = None,
        compare: Compare = supervise.DRAWN,
        text: HeldOutText = "search",
    ) -> Evidence:
        """Run one job, from where it was cut off if it was. Without a candidate it is a reference's, whose
        code is ours."""
        label, going_on, known = directory.name, job, before
        cut = resume.find(directory, job) if job.task == "train" else None
        if cut is None:
            resume.forget(directory)  # what is left there is of other code
        else:
            going_on = msgspec.structs.replace(job, task="resume")
            known = msgspec.structs.replace(before or Evidence(), checks=cut.checks, held_out=cut.held_out)
            message = f"trial {label} goes on after {cut.step} of {job.train.steps} steps"
            self.store.append_events(("trial_resumed", message, {"label": label, "step": cut.step}))
        evidence, steps = self._once(
            directory, going_on, observe, known, expected, candidate_id, cut, compare, text
        )
        if cut is None or steps or evidence.failure is not CandidateState.BROKEN:
            return evidence
        # Its code has trained before, so it may be a file that the disk did not keep.
        warning = f"trial {label} cannot go on after {cut.step} steps and starts over: {evidence.error}"
        self.store.append_events(("warning", warning, {"label": label}))
        again = directory, job, observe, before, expected, candidate_id, None, compare, text
        return self._once(*again)[0]

    def _once(
        self,
        directory: Path,
        job: TrialJob,
        observe: Observe,
        before: Evidence | None,
        expected: Expectations,
        candidate_id: int | None,
        cut: resume.Cut | None,
        compare: Compare,
        text: HeldOutText,
    ) -> tuple[Evidence, int]:
        """Run a trial; its curve goes to the store as it comes, and what it took to the ledger. Returns also
        how many points of the curve came."""
        label, started, on_gpu = directory.name, time.time(), False
        if job.task != "serve":
            self.store.drop_series(label, after=cut.step if cut else 0)
        curve = _Curve(self.store, label, cut.seconds if cut else 0.0)

        def look(report: Report, evidence: Evidence) -> None:
            nonlocal on_gpu
            if isinstance(report, protocol.Ready):
                on_gpu |= report.gpu and job.device != "cpu"
            elif isinstance(report, Progress):
                curve.add(report)
                self.watch.working(label, "training", report)
            elif isinstance(report, protocol.Stage):
                self.watch.working(label, report.state.value, None)
                executor.prepare()
            elif isinstance(report, protocol.Trained | protocol.Loaded):
                curve.flush()
                self.watch.working(label, "probes" if job.probes else "evaluation", None)
            elif isinstance(report, protocol.Probed) and report.probe == job.probes[-1]:
                self.watch.working(label, "evaluation", None)
            observe(report, evidence)

        def keep(directory: Path, cut: resume.Cut) -> None:
            curve.flush()
            resume.keep(directory, cut)

        self.watch.working(label, "checks", None)
        watch = supervise.Supervision(self.settings.supervise, expected, look, self.slots.heed, keep)
        try:
            with self.slots.executor() as executor:
                trio = executor.take()
                score, trusted = self._score_job(expected, text), candidate_id is None
                evidence = supervise.run(
                    trio, job, score, directory, watch, before, cut, compare=compare, trusted=trusted
                )
        finally:
            curve.flush()
            key = f"{label if candidate_id is None else candidate_id}/trial-{started:.3f}"
            cost = spending.of_trial(candidate_id, max(0.0, time.time() - started), on_gpu=on_gpu)
            self.store.ledger.add(key, cost)
        return evidence, curve.points

    def _expectations(self, baselines: Baselines, prune_above: pruning.Limits) -> Expectations:
        limits, cpu_seconds = self.settings.limits, baselines.cpu_seconds()
        return Expectations(
            marks={step: Expected(*mark) for step, mark in baselines.marks().items()},
            seconds_per_step=baselines.seconds_per_step(),
            chance=math.log(self._vocab_size()),
            prune_above=prune_above,
            most_parameters=baselines.most_parameters(limits.parameter_ratio),
            most_cpu_seconds=None if cpu_seconds is None else cpu_seconds * limits.cpu_ratio,
        )


def _nobody(report: Report, evidence: Evidence) -> None:
    """Nobody follows these trials."""


def _with_an_end(evidence: Evidence) -> Evidence:
    """A trial without a result and without a failure has failed."""
    if evidence.evaluation is None and evidence.failure is None:
        return msgspec.structs.replace(evidence, failure=CandidateState.BROKEN, error="no result")
    return evidence


def at_rate(train: Train, rate: float) -> Train:
    """The same training at `rate` times the learning rate."""
    return msgspec.structs.replace(train, learning_rate=rate * train.learning_rate)


def mark_steps(settings: Settings) -> tuple[int, ...]:
    """The steps after which the held-out loss is measured: those of the marks, but neither 0 nor the last."""
    steps = settings.train.steps
    found = {round(share * steps) for share in settings.evaluate.marks}
    return tuple(sorted(step for step in found if 0 < step < steps))


class _Curve:
    """Collects points of a training curve and writes them about once a second."""

    def __init__(self, store: Store, label: str, earlier: float) -> None:
        self.store, self.label = store, label
        self.rows: list[Sequence[float]] = []
        self.points = 0
        self.flushed = time.monotonic()
        self.started = self.flushed - earlier

    def add(self, p: Progress) -> None:
        self.points += 1
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
