"""Makes the fresh runs that claims are made of, wherever a slot is free, and tags what is shown for good."""

from __future__ import annotations

import functools
from collections.abc import Callable

from asi_lab.engineer.trials import Trials
from asi_lab.errors import UsageError
from asi_lab.events import NewEvent
from asi_lab.lab import Lineage, Store, fresh, trial_label
from asi_lab.records import CandidateState, FreshRun, Run
from asi_lab.scoring import races, references, verification
from asi_lab.scoring.verification import Verification
from asi_lab.settings import Settings

AGAIN = frozenset({CandidateState.INTERRUPTED, CandidateState.TIMED_OUT})
"""Ends of a candidate's run that the machine may be to blame for: it is made again, as often as a trial that
was cut off may be begun."""


class Verifier:
    """The verification of one lab."""

    def __init__(self, settings: Settings, store: Store, lineage: Lineage, trials: Trials) -> None:
        self.settings, self.store, self.lineage, self.trials = settings, store, lineage, trials

    def run(self, may_go_on: Callable[[], bool]) -> None:
        """Make the runs that are due, until all claims have ended or `may_go_on` says no."""
        slots, begun = self.trials.slots, set[Run]()
        self._tag()
        while True:
            slots.settle()
            due = [run for run in self._read().due if run not in begun]
            if due and not slots.has_room:
                slots.wait_for_room()
            elif due and may_go_on():
                begun.add(due[0])
                slots.begin(fresh.label(due[0]), functools.partial(self._make, due[0]))
            elif slots.begun:
                slots.wait_for_one()
            else:
                return

    def _make(self, run: Run) -> None:
        """Make one run, record it, and tag what it shows."""
        is_reference = run.architecture in references.names()
        number = None if is_reference else int(run.architecture)
        code = references.source(run.architecture) if number is None else self.store.held(number).code
        evidence = self.trials.fresh(run, code, number)
        if evidence.failure in (races.AGAIN if is_reference else AGAIN):
            message = f"{run.words}: {evidence.failure}; it does not count, and is made again next time"
            count = fresh.cut_off(self.store, run, ("warning", message, {}))
            if is_reference or count < self.settings.search.max_starts:
                return
        news: NewEvent = ("warning", f"fresh run of {run.words} failed: {evidence.failure}", {})
        if not evidence.failure:
            news = ("note", f"fresh run of {run.words}: loss {evidence.measured.loss:.4f}", {})
        fresh.keep(self.store, FreshRun(*run[:2], evidence, run.rate), news)
        self._tag()

    def _tag(self) -> None:
        """Tag what is shown for good, also where such a tag was lost."""
        found = self._read()
        for claim in found.claims:
            if claim.tagged:
                sha, label = self.store.held(claim.candidate).sha, trial_label(claim.candidate)
                with self.lineage.publishing:
                    made = self.lineage.tag(f"verified/{label}", sha, verification.tag_text(claim, found))
                if made:
                    self.store.append_events(("note", f"verified/{label} is tagged", {"sha": sha}))

    def _read(self) -> Verification:
        found = verification.read(self.settings, self.store)
        if found is None:
            raise UsageError("Verification: expected a lab with measured baselines. Start the search first.")
        return found
