"""Makes the fresh runs that the claims at one scale are made of, wherever a slot is free, and tags what is
shown for good."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from asi_lab.engineer.trials import Trials
from asi_lab.events import NewEvent
from asi_lab.lab import Lineage, Store, fresh, trial_label
from asi_lab.lab.commits import VERDICTS
from asi_lab.lab.rungs import Rung
from asi_lab.records import CandidateState, FreshRun, Run
from asi_lab.scoring import promotion, races, references, verification
from asi_lab.scoring.verification import Claim, Verdict, Verification

AGAIN = frozenset({CandidateState.INTERRUPTED, CandidateState.TIMED_OUT})
"""Ends of a candidate's run that the machine may be to blame for: it is made again, as often as a trial that
was cut off may be begun."""


class Verifier:
    """The claims of a lab at one scale."""

    def __init__(
        self, rung: Rung, below: Rung | None, store: Store, lineage: Lineage, trials: Trials
    ) -> None:
        """`below` is the next smaller scale, and `trials` are those of this one."""
        self.rung, self.below = rung, below
        self.store, self.lineage, self.trials = store, lineage, trials
        self._begun = set[Run]()
        self._noted = lineage.notes(VERDICTS)
        self._publish()
        self._tell_of_terms()

    @property
    def took(self) -> list[float | None]:
        """How long each run took that was begun here, in seconds; None for one that goes on."""
        known, rung = self.trials.slots.seconds, self.rung.name
        return [known.get(fresh.label(run, rung)) for run in self._begun]

    @property
    def is_of_use(self) -> bool:
        """Whether candidates were promoted here, or may be."""
        return promotion.is_of_use(self.rung, self.below, self.store)

    def promote(self, candidates: Sequence[int], count: int, *, by_lot: bool = True) -> None:
        """Promote these candidates, or without any the `count` most promising ones where no claim is open,
        with others `by_lot`; nobody before the bar is known."""
        terms = promotion.terms(self.rung, self.store)
        if terms is None:
            return
        drawn: Sequence[int] = ()
        if not candidates:
            if self._open:
                return
            candidates = promotion.promising(self.rung, self.below, self.store)[:count]
            drawn = promotion.by_lot(self.rung, self.below, self.store) if by_lot else ()
        if new := fresh.promote(self.store, self.rung.name, terms, candidates, drawn):
            message = f"promoted{self._at}: {', '.join(map(trial_label, new))}"
            self.store.append_events(("note", message, {}))
            self._publish()

    def begin(self, may_go_on: Callable[[], bool]) -> bool:
        """Begin the next run that is due, once a slot is free; returns whether there was one."""
        due = self._due()
        if not due or not may_go_on():
            return False
        self._begun.add(due[0])
        self.trials.slots.begin(fresh.label(due[0], self.rung.name), functools.partial(self._make, due[0]))
        return True

    def run(self, may_go_on: Callable[[], bool], candidates: Sequence[int], count: int) -> bool:
        """Promote as `promote` does, and make the runs that are due until all claims have ended or
        `may_go_on` says no; returns whether no claim is open."""
        slots, asked = self.trials.slots, False
        while True:
            slots.settle()
            if not asked and promotion.terms(self.rung, self.store):
                self.promote(candidates, count)
                asked = True
            if self._due() and not slots.has_room:
                slots.wait_for_room()
            elif not self.begin(may_go_on):
                if not slots.begun:
                    return not self._open
                slots.wait_for_one()

    @property
    def _open(self) -> bool:
        found = verification.of_rung(self.store, self.rung.name)
        return bool(found and found.count[Verdict.OPEN])

    @property
    def _at(self) -> str:
        return f" at {self.rung.title}" if self.rung.name else ""

    def _due(self) -> list[Run]:
        """What is to be run and was not begun by this engine."""
        found = verification.of_rung(self.store, self.rung.name)
        due = found.due if found else promotion.due(self.rung, self.store)
        return [run for run in due if run not in self._begun]

    def _tell_of_terms(self) -> None:
        """Warn where the settings ask for other terms than those that the first promotion fixed."""
        terms, wanted = promotion.terms(self.rung, self.store), self.rung.settings.verify
        if terms and (terms.bar_runs, terms.tune) != (wanted.bar_runs, wanted.tune):
            old = f"verify.bar_runs = {terms.bar_runs}, verify.tune = {str(terms.tune).lower()}"
            words = (
                f"lab.toml has other terms of claims; they go on under those of the first promotion: {old}"
            )
            self.store.append_events(("warning", words, {}))

    def _make(self, run: Run) -> None:
        """Make one run, record it, and tag what it shows."""
        what = f"{run.words}{self._at}"
        is_reference = run.architecture in references.names()
        number = None if is_reference else int(run.architecture)
        code = references.source(run.architecture) if number is None else self.store.held(number).code
        evidence = self.trials.fresh(run, code, number)
        if evidence.failure in (races.AGAIN if is_reference else AGAIN):
            message = f"{what}: {evidence.failure}; it does not count, and is made again next time"
            count = fresh.cut_off(self.store, run, self.rung.name, ("warning", message, {}))
            if is_reference or count < self.trials.settings.search.max_starts:
                return
        news: NewEvent = ("warning", f"fresh run of {what} failed: {evidence.failure}", {})
        if not evidence.failure:
            news = ("note", f"fresh run of {what}: loss {evidence.measured.loss:.4f}", {})
        fresh.keep(self.store, FreshRun(*run[:2], evidence, run.rate, self.rung.name), news)
        self._publish()

    def _publish(self) -> None:
        """Note what is known on the commits of candidates, and tag what is shown for good, also where a note
        or a tag was lost."""
        found = verification.of_rung(self.store, self.rung.name)
        if found is None:
            return
        for claim in (claim for claim in found.claims if claim.verdict is not Verdict.OPEN):
            sha, label = self.store.held(claim.candidate).sha, trial_label(claim.candidate)
            with self.lineage.publishing:
                self._note(sha, claim, found)
                if claim.tagged:
                    self._tag("/".join(filter(None, ("verified", self.rung.name, label))), sha, claim, found)

    def _tag(self, name: str, sha: str, claim: Claim, found: Verification) -> None:
        if self.lineage.tag(name, sha, verification.tag_text(claim, found, self.rung.title)):
            self.store.append_events(("note", f"{name} is tagged", {"sha": sha}))

    def _note(self, sha: str, claim: Claim, found: Verification) -> None:
        """Put a verdict among those of a commit, one line for each scale."""
        start, noted = f"Verdict at {self.rung.title}: ", self._noted.get(sha, "")
        others = [line for line in noted.splitlines() if not line.startswith(start)]
        text = "\n".join(sorted([*others, f"{start}{verification.words(claim, found)}"]))
        if text != noted:
            self.lineage.annotate(sha, text, VERDICTS)
            self._noted[sha] = text
