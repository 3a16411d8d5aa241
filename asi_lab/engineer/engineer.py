"""The engineer: a proposal is checked, trained and measured, and its code put right (paper, section 2.3)."""

from __future__ import annotations

import msgspec

from asi_lab.engineer import repair
from asi_lab.engineer.contract import check_source
from asi_lab.engineer.trials import Trials
from asi_lab.lab import Store
from asi_lab.llm.models import Models
from asi_lab.records import Candidate, CandidateState, Evidence, Proposal, Repair
from asi_lab.scoring import Baselines, fitness
from asi_lab.scoring.pruning import Pruning
from asi_lab.settings import Settings

S = CandidateState
TO_MEASURE = (S.CHECKED, S.PREFLIGHTED, S.TRAINING, S.TRAINED)


class Engineer:
    """Takes candidates from proposal to evidence. Every method may be called from several threads; those that
    measure, each in a slot."""

    def __init__(self, settings: Settings, store: Store, trials: Trials, models: Models) -> None:
        self.settings, self.trials, self.models = settings, trials, models
        self.states = trials.states
        self.pruning = Pruning(settings, store)

    def check(self, candidate: Candidate) -> Candidate:
        """Read the source against the contract."""
        if candidate.state is not S.PROPOSED:
            return candidate
        checks = check_source(candidate.code)
        failed = [check for check in checks if not check.passed]
        if failed:
            error = f"{failed[0].name}: {failed[0].detail}"
            return self.states.fail(candidate, Evidence(checks, failure=S.REJECTED, error=error))
        return self.states.advance(candidate, S.CHECKED, evidence=Evidence(checks))

    def measure(self, candidate: Candidate, baselines: Baselines, last: int) -> Candidate:
        """Train and evaluate in a trial; what an earlier, cut-off trial has earned is kept. The limits at its
        marks rest on candidates up to `last`."""
        if candidate.state not in TO_MEASURE:
            return candidate
        why = ""
        while self.trials.may_begin(candidate):
            limits, resumed = self.pruning.limits(candidate.id, baselines, last), candidate.state is S.TRAINED
            candidate, evidence = self.trials.candidate(candidate, baselines, limits)
            in_probe = evidence.error.startswith(f"{S.BROKEN.value} in probe_")  # its weights were loaded
            failed = evidence.failure in (S.BROKEN, S.FORGED) and not in_probe
            if failed and resumed:  # the disk may not have kept its weights
                candidate = self.states.advance(candidate, S.CHECKED)
            elif evidence.failure is not S.INTERRUPTED:
                return self._measured(candidate, evidence, baselines)
            else:
                why = f"; at last {evidence.error.partition(chr(10))[0]}"
        error = f"its trial was cut off {candidate.cuts} times{why}"
        before = candidate.evidence or Evidence()
        cut_off = msgspec.structs.replace(before, failure=S.INTERRUPTED, error=error)
        return self.states.fail(candidate, cut_off)

    def _measured(self, candidate: Candidate, evidence: Evidence, baselines: Baselines) -> Candidate:
        """Record what a trial gave; a loss that is too good to be true waits for a person to release it."""
        if evidence.failure is not None:
            return self.states.fail(candidate, evidence)
        loss, reference, leak = evidence.measured.loss, baselines.reference, self.settings.fitness.leak
        if fitness.is_implausible(evidence.measured, reference, leak):
            candidate, evidence = self.trials.thoroughly(candidate, evidence)
            if evidence.failure is not None:
                return self.states.fail(candidate, evidence)
            error = (
                f"held-out loss {loss:.4f} is more than {leak:.0%} under the baseline's "
                f"{reference.loss:.4f}, though no check finds a leak. Look at it; if it is sound: "
                f"asi-lab release {candidate.id}"
            )
            suspect = msgspec.structs.replace(evidence, failure=S.SUSPECT, error=error)
            return self.states.fail(msgspec.structs.replace(candidate, thorough=True), suspect)
        return self.states.advance(candidate, S.EVALUATED, evidence=evidence)

    def confirm(self, candidate: Candidate, baselines: Baselines, last: int) -> Candidate:
        """Compare one that would lead the lab at all positions; where its weights are lost, measure it again
        as `measure` does."""
        candidate, evidence = self.trials.thoroughly(candidate, candidate.found)
        if evidence.failure is S.INTERRUPTED and self.trials.may_begin(candidate):  # its weights are lost
            again = self.states.advance(candidate, S.CHECKED, evidence=None, score=None, analysis=None)
            return self.measure(again, baselines, last)
        if evidence.failure is not None:
            unscored = msgspec.structs.replace(candidate, score=None, analysis=None)
            return self.states.fail(unscored, evidence)
        return self.states.advance(candidate, candidate.state, thorough=True)

    def repair(self, candidate: Candidate) -> tuple[Proposal, Repair] | None:
        """Changed code for a candidate that failed, and what was changed; None where it is not to be repaired
        any more."""
        return repair.repair(self.models, candidate, self.settings.agents.repairs)
