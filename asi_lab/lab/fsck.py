"""Does the lineage say what the store says? Finding out, and putting it right from the store.

The store is the truth: every commit can be made again from it, to the same id. A repair never
deletes anything: refs the store does not know go to `refs/quarantine/`, a damaged repository is set
aside beside the new one.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np

from asi_lab.common.embedding import embed, is_embedding
from asi_lab.errors import LineageError, StoreError
from asi_lab.lab import fresh, repeats, steering
from asi_lab.lab.commits import (
    ARCHITECTURES,
    BEST,
    FAILURES,
    MAIN,
    REFERENCES,
    Commit,
    candidate_commit,
    is_published,
    ref_of,
    reference_commit,
    seed_commit,
)
from asi_lab.lab.lineage import Lineage
from asi_lab.lab.soundness import as_far_as_sound, back_to
from asi_lab.lab.store import Store
from asi_lab.lab.summary import summarise
from asi_lab.records import SEED_ID, Candidate, CandidateState, Proposal

_FOLDERS = {folder.rstrip("/") for folder in (ARCHITECTURES, FAILURES, REFERENCES)}


class Finding(msgspec.Struct, frozen=True):
    """One disagreement. `subject` is a ref, `candidate 42` or a path; `repaired` says whether
    `repair` put it right."""

    subject: str
    message: str
    repaired: bool = False


def check(
    store: Store, path: Path, config_text: str, references: Sequence[Proposal] = (), *, thorough: bool = True
) -> list[Finding]:
    """Compare the lineage at `path` and the store's own tables with the records.

    A thorough check makes every commit again to compare its id, and has git read every object (seconds
    for thousands). A quick one believes a commit that the record and the ref agree on.
    `references` and `config_text` are those the lineage was created with. Raises `LineageError` when
    git is missing.
    """
    return _Examination(store, path, config_text, references, repair=False).run(thorough)


def repair(
    store: Store, path: Path, config_text: str, references: Sequence[Proposal] = (), *, thorough: bool = True
) -> list[Finding]:
    """Like `check`, and put right what is found. Hold the lab's lock and a writable store. Returns
    the findings as they were, marked with whether they are repaired."""
    return _Examination(store, path, config_text, references, repair=True).run(thorough)


class _Examination:
    def __init__(
        self, store: Store, path: Path, config_text: str, references: Sequence[Proposal], repair: bool
    ) -> None:
        self.store, self.path, self.config_text, self.references = store, path, config_text, references
        self.repair = repair
        self.findings: list[Finding] = []

    def run(self, thorough: bool) -> list[Finding]:
        self._store_tables()
        seed = self.store.get(SEED_ID)
        if seed is None or seed.proposal is None:
            if self.store.count():
                self._found("candidate 0", "the seed is missing, so the lineage has no root", fixed=False)
            return self.findings
        lineage = self._opened(seed, thorough)
        if lineage is not None:
            self._lineage(lineage, seed, thorough)
        return self.findings

    def _store_tables(self) -> None:
        summaries = {summary.id: summary for summary in self.store.summaries()}
        for record in self.store.records():
            candidate, wrong = as_far_as_sound(record)
            told = f"its record {wrong}; {back_to(candidate)}" if wrong else ""
            if summaries.pop(candidate.id, None) != summarise(candidate):
                told = told or "its summary differs from its record"
            if told:
                if self.repair:
                    self.store.put(candidate)
                self._found(f"candidate {candidate.id}", told, self.repair)
            self._embedding(candidate)
        for unknown in summaries:
            self._found(f"candidate {unknown}", "has a summary but no record", fixed=False)
        self._events()
        self._claims()
        for run in self.store.series_runs():
            try:
                rising = bool(np.all(np.diff(self.store.series(run)[:, 0]) > 0))
                message = "" if rising else "the steps of its loss curve do not rise"
            except ValueError:
                message = "its loss curve is cut in the middle of a point"
            if message:
                self._found(f"series {run}", message, fixed=False)

    def _claims(self) -> None:
        """Promotions are of candidates that have a score, and fresh runs are sound."""
        try:
            fresh.runs(self.store)
            for rung in ("", *fresh.rungs(self.store)):
                for promotion in fresh.promotions(self.store, rung):
                    candidate = self.store.get(promotion.candidate)
                    if candidate is None or candidate.state is not CandidateState.DONE:
                        message = f"is of candidate {promotion.candidate}, which has no score"
                        self._found(f"promotion {promotion.number}", message, fixed=False)
        except StoreError as error:
            self._found("claims", str(error), fixed=False)

    def _events(self) -> None:
        last = 0
        while events := self.store.events(last):
            numbers = range(last + 1, last + 1 + len(events))
            if wrong := [
                number for number, event in zip(numbers, events, strict=True) if event.seq != number
            ]:
                self._found(f"event {wrong[0]}", "is missing", fixed=False)
            last = events[-1].seq

    def _embedding(self, candidate: Candidate) -> None:
        """An embedding that is damaged, or is none, is made again from the motivation."""
        try:
            vector = self.store.vector(candidate.id)
            message = "" if vector is None or is_embedding(vector) else "its embedding is no unit vector"
        except StoreError as error:
            message = str(error)
        if message and candidate.proposal is not None:
            if self.repair:
                self.store.put(candidate, vector=embed(candidate.proposal.motivation))
            self._found(f"candidate {candidate.id}", message, self.repair)

    def _opened(self, seed: Candidate, thorough: bool) -> Lineage | None:
        """Open the lineage; a missing or damaged one is set aside and begun anew when repairing."""
        try:
            lineage = Lineage.open(self.path, rooted=False)
            if self.repair:
                lineage.recover()
            lineage.refs()
            complaints = lineage.verify() if thorough else []
            if not complaints:
                return lineage
            trouble = f"git finds it damaged: {'; '.join(complaints[:3])}"
        except LineageError as error:
            trouble = str(error)
        if not self.repair:
            self._found(str(self.path), trouble, fixed=False)
            return None
        fresh = self.path.with_name(f"{self.path.name}.new")
        shutil.rmtree(fresh, ignore_errors=True)  # left half-made by a repair that was killed
        Lineage.create(fresh, seed, self.config_text, self.references)  # before anything is moved
        if self.path.exists() or self.path.is_symlink():
            aside = _free_name(self.path)
            self.path.rename(aside)
            trouble += f"; kept as {aside.name}"
        fresh.rename(self.path)
        self._found(str(self.path), trouble, fixed=True)
        return Lineage.open(self.path)

    def _lineage(self, lineage: Lineage, seed: Candidate, thorough: bool) -> None:
        actual = lineage.refs()
        root = seed_commit(seed, self.config_text)
        known, shas, missing = {root.ref}, {SEED_ID: root.sha}, list[int]()
        self._record(seed, root.sha)
        roots = [root, *(reference_commit(r, seed, self.config_text) for r in self.references)]
        lost = [commit for commit in roots if not self._agrees(lineage, actual, commit)]
        for candidate in self.store.candidates(SEED_ID + 1):
            if candidate.released and candidate.commit is None:
                known.add(f"{FAILURES}{candidate.id:04d}")  # until it is published as what it is now
            if not is_published(candidate) and candidate.state is not CandidateState.ANALYSED:
                continue
            ref = ref_of(candidate)
            if not thorough and candidate.commit is not None and actual.get(ref) == candidate.commit:
                known.add(ref)
                shas[candidate.id] = candidate.commit
                continue
            parent = shas.get(candidate.parent or SEED_ID)
            if parent is None or candidate.proposal is None:
                message = f"cannot be published: its parent {candidate.parent} is not in the lineage"
                self._found(f"candidate {candidate.id}", message, fixed=False)
                continue
            commit = candidate_commit(candidate, self.config_text, parent)
            known.add(commit.ref)
            shas[candidate.id] = commit.sha
            if candidate.commit is not None or candidate.state is CandidateState.DONE:
                self._record(candidate, commit.sha)
            elif commit.ref not in actual:
                continue  # the engine was stopped before it was published, and does so when it goes on
            if not self._agrees(lineage, actual, commit):
                missing.append(candidate.id)
        self._strangers(lineage, actual, known, [*(commit.ref for commit in roots), BEST])
        self._publish(lineage, itertools.chain(lost, self._remade(missing, shas)))
        self._best(lineage, actual.get(BEST), shas)
        self._notes(lineage, shas)
        self._head(lineage, known | set(actual))

    def _strangers(self, lineage: Lineage, actual: dict[str, str], known: set[str], fixed: list[str]) -> None:
        """Set aside what is no candidate's, and what git cannot have beside our refs: a ref with the name of
        one of our folders, or within one of our refs."""
        inside = (ARCHITECTURES, FAILURES, *(f"{ref}/" for ref in fixed))
        for ref, sha in actual.items():
            if ref not in known and (ref.startswith(inside) or ref in _FOLDERS):
                self._set_aside(lineage, ref, sha, "is not in the store")

    def _head(self, lineage: Lineage, refs: set[str]) -> None:
        if (head := lineage.head()) is not None and head not in refs:
            if self.repair:
                lineage.set_head(MAIN)
            self._found("HEAD", f"names {head}, which is not there; it is to name main", self.repair)

    def _remade(self, candidates: list[int], shas: dict[int, str]) -> Iterator[Commit]:
        for candidate in map(self.store.get, candidates):
            if candidate is not None:
                yield candidate_commit(candidate, self.config_text, shas[candidate.parent or SEED_ID])

    def _agrees(self, lineage: Lineage, actual: dict[str, str], commit: Commit) -> bool:
        found, expected = actual.get(commit.ref), commit.sha
        if found is None:
            self._found(commit.ref, f"is missing; it is commit {expected[:12]}", self.repair)
        elif found != expected:
            self._set_aside(lineage, commit.ref, found, f"is {found[:12]}, not {expected[:12]}")
        return found == expected

    def _publish(self, lineage: Lineage, commits: Iterable[Commit]) -> None:
        if self.repair:
            lineage.publish(commits)

    def _set_aside(self, lineage: Lineage, ref: str, sha: str, message: str) -> None:
        if self.repair:
            message += f"; kept as {lineage.quarantine(ref, sha)}"
        self._found(ref, message, self.repair)

    def _record(self, candidate: Candidate, sha: str) -> None:
        if candidate.commit == sha:
            return
        message = f"its record names commit {candidate.commit}; it is {sha[:12]}"
        if self.repair:
            corrected = msgspec.structs.replace(candidate, commit=sha)
            self.store.put(corrected, ("repair", message, {"sha": sha}))
        self._found(f"candidate {candidate.id}", message, self.repair)

    def _best(self, lineage: Lineage, found: str | None, shas: dict[int, str]) -> None:
        best = self.store.best_id()
        if best is None or best not in shas or found == shas[best]:
            return
        candidate = self.store.get(best)
        if self.repair and candidate is not None:
            lineage.update_best(candidate)
        self._found(BEST, f"is {found and found[:12]}; candidate {best} is the best", self.repair)

    def _notes(self, lineage: Lineage, shas: dict[int, str]) -> None:
        """Notes that git has not, or has otherwise; those on other commits are the user's own."""
        noted = {*steering.notes(self.store), *repeats.all_ids(self.store)}
        wanted = {
            number: steering.published(self.store, number) for number in sorted(noted) if number in shas
        }
        have = lineage.notes() if wanted else {}
        for number, text in wanted.items():
            if have.get(shas[number], "") != text:
                if self.repair:
                    lineage.annotate(shas[number], text)
                self._found(f"candidate {number}", "its git note is not what was noted on it", self.repair)

    def _found(self, subject: str, message: str, fixed: bool) -> None:
        self.findings.append(Finding(subject, message, fixed))


def _free_name(path: Path) -> Path:
    names = (path.with_name(f"{path.name}.damaged-{number}") for number in itertools.count(1))
    return next(name for name in names if not name.exists())
