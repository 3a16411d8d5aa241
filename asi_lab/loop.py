"""The search, written as one page.

    draw -> propose -> check -> measure -> score -> explain -> publish
                         ^-- repair <--/

The loop alone joins the roles and is the only writer of the store. Each step takes a candidate as far
as the next state and records it in one transaction, so a search that is cut off anywhere goes on with
the step that is missing.

Candidates are proposed one after the other and measured in slots, several at the same time where the lab has
several. What may be known to a candidate is bounded by its id, so that it does not matter who ends first.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from asi_lab.common.background import Aside
from asi_lab.engineer.contract import check_source
from asi_lab.engineer.reruns import Reruns
from asi_lab.engineer.trials import Trials
from asi_lab.events import NewEvent
from asi_lab.lab import Lineage, Store, steering, trial_label
from asi_lab.lab.directory import run_label
from asi_lab.lab.soundness import as_far_as_sound
from asi_lab.llm.models import Models
from asi_lab.records import RULES, Candidate, CandidateState, Draw, Entry, Evidence
from asi_lab.researcher import pool, stagnation
from asi_lab.researcher.index import Index
from asi_lab.researcher.novelty import Proposed, duplicate_of
from asi_lab.roles import Roles
from asi_lab.scoring import baselines, fitness, pruning, references
from asi_lab.scoring.archive import Archive
from asi_lab.scoring.baselines import Baselines
from asi_lab.settings import Settings
from asi_lab.turns import Turns

S = CandidateState


class Loop:
    """One search over one lab."""

    def __init__(
        self,
        settings: Settings,
        config_text: str,
        store: Store,
        lineage: Lineage,
        trials: Trials,
        agents: Models,
        roles: Roles,
    ) -> None:
        self.settings, self.config_text = settings, config_text
        self.store, self.lineage, self.trials, self.slots = store, lineage, trials, trials.slots
        self.roles, self.agents = roles, agents
        self.plans, self.ends = Aside(self.propose, "plan"), Aside(self.finish, "end")
        self.turns = Turns(settings, store, self.slots, self.ends, agents)
        self.reruns = Reruns(store, trials, self.annotate)
        self._accepting, self._publishing = threading.Lock(), threading.Lock()
        self.index = Index(*store.vectors())
        upper = references.upper()
        self.known_code = {upper.code_hash: upper.name}
        self.known_code |= {code: f"candidate {number}" for code, number in store.code_hashes().items()}
        self.baselines = Baselines(settings, store.baselines())
        self.pruning = pruning.Pruning(settings, store)

    def run(self, experiments: int | None, may_go_on: Callable[[], bool]) -> None:
        """Explore until the lab holds `experiments` candidates or `may_go_on` says no."""
        tick = self.agents.watch.tick
        try:
            while (candidate_id := self.turns.next(experiments)) and may_go_on():
                if self.reruns.begin(may_go_on):
                    continue
                self._plan_from(candidate_id, experiments)
                self._refresh_baselines(candidate_id)
                if self.store.get(candidate_id) is None:
                    self.propose(candidate_id)
                self.slots.begin(trial_label(candidate_id), functools.partial(self.explore, candidate_id))
            self.slots.wait()
            self.ends.wait(tick)
            self._confirm_who_waits(tick)
            while self.reruns.begin(may_go_on):
                self.slots.wait()
        finally:
            self.slots.stop()
            self.agents.stopped.set()
            self.plans.settle()
            self.ends.settle()

    def explore(self, candidate_id: int) -> None:
        """Take a proposed candidate from wherever it stands through its trial; what models do about it then,
        they do beside the next trial. One that they repaired has its turn again."""
        self.confirm(self.measure(self.check(self.archive.get(candidate_id))))
        if self._is_beside:
            self.ends.begin(candidate_id)
        else:
            self.finish(candidate_id)

    def finish(self, candidate_id: int) -> None:
        """Score, explain and publish a candidate that was measured, or one that has failed and cannot be
        repaired."""
        candidate = self.archive.get(candidate_id)
        if self.repair(candidate) is not candidate:
            return
        candidate = self.score(candidate)
        if self._is_beside and self._awaits_confirmation(candidate):
            return  # it has a turn of its own for that
        candidate = self.explain(self.confirm(candidate))
        with self._publishing:
            if not self._awaits_confirmation(candidate):  # it may have come to lead meanwhile
                self.publish(candidate)

    def _confirm_who_waits(self, tick: Callable[[], None]) -> None:
        """Have those confirmed and published that have all but that behind them."""
        for number in [c.id for c in self.store.unfinished() if self._awaits_confirmation(c)]:
            self.slots.begin(trial_label(number), functools.partial(self.explore, number))
        self.slots.wait()
        self.ends.wait(tick)

    def _plan_from(self, candidate_id: int, experiments: int | None) -> None:
        """Have models plan a candidate and those behind it, and wait for the first, also where it was begun
        while models could still be asked."""
        if self._is_beside:
            last = candidate_id + self.agents.ahead
            for number in range(candidate_id, min(last, experiments or last) + 1):
                if self.store.get(number) is None:
                    self.plans.begin(number)
        if self.plans.at_work(candidate_id):
            self.agents.watch.working(trial_label(candidate_id), "planner", None)
            self.plans.wait(self.agents.watch.tick, candidate_id)

    @property
    def _is_beside(self) -> bool:
        """Whether models plan, repair, judge and explain beside the trials."""
        return self.agents.present and self.agents.ahead > 0

    def propose(self, candidate_id: int) -> None:
        """Draw a parent and references, have the researcher write something new, and record it."""
        created = time.time()
        draw = self.agents.drawn(candidate_id) or self._draw(candidate_id, self.archive.entries())
        known = self._known_to(candidate_id)
        proposed = self.roles.propose(candidate_id, draw, self.index, self.known_code, known)
        with self._accepting:
            self._accept(candidate_id, created, draw, proposed)

    def _draw(self, candidate_id: int, entries: Sequence[Entry]) -> Draw:
        """Parent and references, from further away the longer the search stands still."""
        search, seed, behind = self.settings.search, self.settings.seed, self.turns.behind
        orders = steering.read(self.store)
        eligible = steering.eligible(orders, entries)
        drawn = pool.draw(candidate_id, eligible, search, seed, behind)
        last = candidate_id - 1 - behind
        step = stagnation.standstill(last, entries, search).step
        known = [entry.id for entry in eligible if entry.id <= last]
        drawn = stagnation.escalated(drawn, step, candidate_id, known, self.index.likeness, seed)
        return steering.steered(orders, drawn, entries)

    def _accept(self, candidate_id: int, created: float, draw: Draw, proposed: Proposed) -> None:
        """Record a proposal, after a look that nothing like it was accepted since it was begun."""
        if not proposed.duplicate:
            limit = self.settings.search.duplicate_similarity
            again = duplicate_of(
                proposed.proposal, self.index.nearest(proposed.vector, 1), self.known_code, limit
            )
            proposed = msgspec.structs.replace(proposed, duplicate=again)
        evidence = Evidence(failure=S.DUPLICATE, error=proposed.duplicate) if proposed.duplicate else None
        candidate = Candidate(
            id=candidate_id,
            state=S.DUPLICATE if proposed.duplicate else S.PROPOSED,
            created=created,
            updated=time.time(),
            draw=draw,
            proposal=proposed.proposal,
            evidence=evidence,
            rules=RULES,
        )
        change = f"from {draw.parent} ({proposed.proposal.change})"
        data = {"generation": draw.generation, "parent": draw.parent, "references": list(draw.references)}
        self.store.put(
            candidate,
            *self._pool_news(candidate_id, draw),
            ("candidate_proposed", f"{proposed.proposal.name} {change}", data),
            vector=proposed.vector,
        )
        self.index.add(candidate_id, proposed.vector)
        self.known_code.setdefault(proposed.proposal.code_hash, f"candidate {candidate_id}")

    def check(self, candidate: Candidate) -> Candidate:
        """Read the source against the contract."""
        if candidate.state is not S.PROPOSED:
            return candidate
        assert candidate.proposal is not None
        checks = check_source(candidate.proposal.code)
        failed = [check for check in checks if not check.passed]
        if failed:
            evidence = Evidence(checks, failure=S.REJECTED, error=f"{failed[0].name}: {failed[0].detail}")
            return self._end(candidate, evidence)
        return self._advance(candidate, S.CHECKED, evidence=Evidence(checks))

    def repair(self, candidate: Candidate) -> Candidate:
        """Have checker or debugger put right what failed, and begin again with the code; the same candidate
        where there is nothing to repair."""
        if candidate.commit is not None or (changed := self.roles.repair(candidate)) is None:
            return candidate
        proposal, done = changed
        own = f"candidate {candidate.id}"
        with self._accepting:
            same = self.known_code.setdefault(proposal.code_hash, own)
        if same != own:
            error = f"{done.role} made of it the same code as {same}"
            return self._end(candidate, Evidence(failure=S.DUPLICATE, error=error))
        message = f"{candidate.name}: repaired by {done.role} after {done.failure.value}"
        return self._advance(
            candidate,
            S.PROPOSED,
            news=("candidate_repaired", message, {"role": done.role, "model": done.model}),
            proposal=proposal,
            evidence=None,
            starts=0,
            repairs=(*candidate.repairs, done),
        )

    def measure(self, candidate: Candidate) -> Candidate:
        """Train and evaluate in a trial; what an earlier, cut-off trial has earned is kept."""
        if candidate.state not in (S.CHECKED, S.PREFLIGHTED, S.TRAINING, S.TRAINED):
            return candidate
        last = ""
        while self.trials.may_begin(candidate):
            limits, resumed = self._limits(candidate), candidate.state is S.TRAINED
            candidate, evidence = self.trials.candidate(candidate, self.baselines, limits, self._advance)
            if evidence.failure in (S.BROKEN, S.FORGED) and resumed:  # the disk may not have kept its weights
                candidate = self._advance(candidate, S.CHECKED)
            elif evidence.failure is not S.INTERRUPTED:
                return self._measured(candidate, evidence)
            else:
                last = f"; at last {evidence.error.partition(chr(10))[0]}"
        error = f"its trial was cut off {candidate.cuts} times{last}"
        before = candidate.evidence or Evidence()
        return self._end(candidate, msgspec.structs.replace(before, failure=S.INTERRUPTED, error=error))

    def _measured(self, candidate: Candidate, evidence: Evidence) -> Candidate:
        """Record what a trial gave; a loss that is too good to be true waits for a person to release it."""
        if evidence.failure is not None:
            return self._end(candidate, evidence)
        assert evidence.evaluation is not None
        loss, reference, leak = evidence.evaluation.loss, self.baselines.reference, self.settings.fitness.leak
        if fitness.is_implausible(evidence.evaluation, reference, leak):
            candidate, evidence = self.trials.thoroughly(candidate, evidence, self._advance)
            if evidence.failure is not None:
                return self._end(candidate, evidence)
            error = (
                f"held-out loss {loss:.4f} is more than {leak:.0%} under the baseline's "
                f"{reference.loss:.4f}, though no check finds a leak. Look at it; if it is sound: "
                f"asi-lab release {candidate.id}"
            )
            suspect = msgspec.structs.replace(evidence, failure=S.SUSPECT, error=error)
            return self._end(msgspec.structs.replace(candidate, thorough=True), suspect)
        return self._advance(candidate, S.EVALUATED, evidence=evidence)

    def confirm(self, candidate: Candidate) -> Candidate:
        """Have one that would lead the lab compared at all positions before it does."""
        if not self._awaits_confirmation(candidate):
            return candidate
        assert candidate.evidence is not None
        candidate, evidence = self.trials.thoroughly(candidate, candidate.evidence, self._advance)
        if evidence.failure is S.INTERRUPTED and self.trials.may_begin(candidate):  # its weights are lost
            return self.measure(self._advance(candidate, S.CHECKED, evidence=None, score=None, analysis=None))
        if evidence.failure is not None:
            return self._end(msgspec.structs.replace(candidate, score=None, analysis=None), evidence)
        return self._advance(candidate, candidate.state, thorough=True)

    def _awaits_confirmation(self, candidate: Candidate) -> bool:
        is_scored = candidate.state in (S.JUDGED, S.ANALYSED) and not candidate.thorough
        return is_scored and pool.leads(candidate, self.archive.entries())

    def score(self, candidate: Candidate) -> Candidate:
        """Have the judge mark it, and compute the fitness."""
        if candidate.state is not S.EVALUATED:
            return candidate
        assert candidate.evidence is not None
        assert candidate.evidence.evaluation is not None
        judgement = self.roles.judge(candidate, self._known_to(candidate.id), self.trials.reference_code)
        score = fitness.score(
            candidate.evidence.evaluation, self.baselines.reference, judgement, self.baselines.noise()
        )
        return self._advance(candidate, S.JUDGED, score=score)

    def explain(self, candidate: Candidate) -> Candidate:
        """Have the analyst compare it with parent, siblings and baseline."""
        if candidate.state is not S.JUDGED:
            return candidate
        analysis = self.roles.explain(candidate, self._known_to(candidate.id))
        return self._advance(candidate, S.ANALYSED, analysis=analysis)

    def publish(self, candidate: Candidate) -> Candidate:
        """Commit it to the lineage, under refs/failed if it failed. Committing again gives the same sha."""
        if candidate.commit is not None or not (candidate.state.is_failure or candidate.state is S.ANALYSED):
            return candidate
        assert candidate.parent is not None
        parent_commit = self.archive.get(candidate.parent).commit
        assert parent_commit is not None
        if not candidate.state.is_failure:
            candidate = msgspec.structs.replace(candidate, state=S.DONE)
        sha = self.lineage.commit(candidate, self.config_text, parent_commit)
        done = msgspec.structs.replace(candidate, commit=sha)
        before = self.store.best_id()
        self.store.put(done, ("commit", f"{sha[:10]} {done.name}", {"sha": sha}), *self._best_news(done))
        self.agents.done(done.id)
        best = self.store.best_id()
        if best == done.id:
            self.lineage.update_best(done)
        self.trials.discard_weights(done.id if best != done.id else before)
        if text := steering.published(self.store, done.id):
            self.lineage.annotate(sha, text)
        return done

    def _best_news(self, done: Candidate) -> Sequence[NewEvent]:
        if done.score is None or not pool.leads(done, self.archive.entries()):
            return ()
        return (("best", f"{done.name} is the best so far: fitness {done.score.fitness:.4f}", {}),)

    def annotate(self, candidate_id: int) -> None:
        """Write what people noted on a candidate, and its further runs, into its git note."""
        with self._publishing:
            steering.publish(self.store, self.lineage, candidate_id)

    def _advance(
        self, candidate: Candidate, state: CandidateState, news: NewEvent | None = None, **changes: Any
    ) -> Candidate:
        """Record that a candidate came further; without other `news` only a new state is news."""
        moved = msgspec.structs.replace(candidate, state=state, updated=time.time(), **changes)
        if news is None and state is not candidate.state:
            news = ("candidate_state", f"{moved.name}: {state.value}", {"state": state.value})
        self.store.put(moved, *([news] if news else []))
        sound, wrong = as_far_as_sound(moved)  # as it was recorded
        return (
            msgspec.structs.replace(sound, starts=sound.starts + 1, cuts=sound.cuts + 1) if wrong else moved
        )

    def _end(self, candidate: Candidate, evidence: Evidence) -> Candidate:
        """Record that a candidate failed, with its evidence."""
        assert evidence.failure is not None
        first_line = evidence.error.strip().splitlines()[-1] if evidence.error.strip() else ""
        ended = msgspec.structs.replace(
            candidate, state=evidence.failure, updated=time.time(), evidence=evidence
        )
        message = f"{ended.name}: {evidence.failure.value}: {first_line}"
        self.store.put(ended, ("candidate_state", message, {"state": evidence.failure.value}))
        return ended

    def _limits(self, candidate: Candidate) -> pruning.Limits:
        """How far over the baseline's curve a candidate may lie; that pruning begins or ends is news."""
        found = self.pruning.calibration(self.baselines, candidate.id - 1 - self.turns.apart)
        if found.in_force != bool(self.store.get_meta("pruning", False)):
            words = "begins" if found.in_force else "ends"
            message = (
                f"pruning {words}: of {found.good} good candidates {found.kills} would have been stopped, at "
                f"most {found.bound:.1%} (95 %), allowed {found.allowed:.1%}; asi-lab calibrate shows more"
            )
            self.store.put_meta("pruning", found.in_force, ("note", message, {}))
        return self.pruning.limits(candidate.id, found)

    def _refresh_baselines(self, candidate_id: int) -> None:
        """Measure further seeds of the baselines where they are due. Trials wait for them: who is judged by
        them must not depend on who ends first."""
        due = baselines.due(self.settings.baselines, candidate_id - 1, self.store.baselines())
        if not due:
            return
        self.slots.wait()
        for architecture, index in due:
            work = functools.partial(self.trials.further_seed, architecture, index)
            self.slots.begin(run_label(architecture, index), work)
        self.slots.wait()
        self.baselines = Baselines(self.settings, self.store.baselines())

    def _pool_news(self, candidate_id: int, draw: Draw) -> Sequence[NewEvent]:
        """What is new since the candidate before: another pool, another step against standstill."""
        search, entries = self.settings.search, self.archive.entries()
        news: list[NewEvent] = []
        if pool.generation_of(max(1, candidate_id - 1 - self.turns.behind), search) != draw.generation:
            ids = [entry.id for entry in pool.members(draw.generation, entries, search)]
            message = f"generation {draw.generation}: {len(ids)} in the pool"
            news.append(("pool_updated", message, {"ids": ids}))
        last = candidate_id - 1 - self.turns.behind
        if draw.step != stagnation.standstill(last - 1, entries, search).step:
            words = stagnation.standstill(last, entries, search).words
            news.append(("standstill", words, {"step": draw.step}))
        return news

    @property
    def archive(self) -> Archive:
        """What the lab knows now."""
        return Archive(self.settings, self.store, self.baselines)

    def _known_to(self, candidate_id: int) -> Archive:
        """What the lab knows, without the results of those that may be in trials beside a candidate."""
        return Archive(self.settings, self.store, self.baselines, self.turns.beside(candidate_id))
