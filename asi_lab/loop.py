"""The search, written as one page (paper, section 2).

    draw -> propose -> check -> measure -> score -> explain -> publish
                         ^-- repair <--/

Only the engine's process writes to the store; the loop alone moves a candidate from state to state. Each step
records the new state in one transaction, so a search that is cut off anywhere goes on with the missing step.

Candidates are proposed one after the other and measured in slots, several at the same time where the lab has
several. What is known to a candidate is bounded by its id, so that it does not matter which one ends first.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

import msgspec

from asi_lab.analyst import Analyst
from asi_lab.common.background import Background
from asi_lab.engineer import Engineer
from asi_lab.engineer.ladder import Ladder
from asi_lab.engineer.reruns import Reruns
from asi_lab.events import NewEvent, Watch
from asi_lab.lab import Lineage, Store, steering, trial_label
from asi_lab.lab.plans import Plans
from asi_lab.llm.models import Models
from asi_lab.records import Arm, Candidate, CandidateState, Evidence
from asi_lab.researcher import Researcher
from asi_lab.researcher.arms import seen_from
from asi_lab.scoring import Archive, Baselines, baselines, fitness
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
        watch: Watch,
        models: Models,
        plans: Plans,
        ladder: Ladder,
        researcher: Researcher,
        engineer: Engineer,
        analyst: Analyst,
    ) -> None:
        """`config_text` is what the lab began with; every commit holds it."""
        self.settings, self.config_text = settings, config_text
        self.store, self.lineage, self.watch = store, lineage, watch
        self.models, self.plans, self.ladder = models, plans, ladder
        self.researcher, self.engineer, self.analyst = researcher, engineer, analyst
        self.trials, self.slots, self.states = engineer.trials, engineer.trials.slots, engineer.states
        self.proposals = Background(self.draw_and_propose, "plan", watch.follow)
        self.conclusions = Background(self.conclude, "end", watch.follow)
        self.turns = Turns(settings, store, self.slots, self.conclusions, models.ahead, watch.tick)
        self.reruns = Reruns(store, lineage, self.trials)
        self.baselines = Baselines(settings, store.baselines())

    def run(self, experiments: int | None, may_go_on: Callable[[], bool]) -> None:
        """Explore until the lab holds `experiments` candidates or `may_go_on` says no."""
        try:
            while candidate_id := self.next(experiments, may_go_on):
                self.propose(candidate_id, experiments)
                self.begin(candidate_id)
            self.finish(may_go_on)
        finally:
            self.slots.stop()
            self.models.stopped.set()
            self.proposals.settle()
            self.conclusions.settle()

    def next(self, experiments: int | None, may_go_on: Callable[[], bool]) -> int | None:
        """Begin the reruns that people asked for, and runs of claims within their share; return whose turn it
        is then, None at the end."""
        while (candidate_id := self.turns.next(experiments)) and may_go_on():
            if not self.reruns.begin(may_go_on) and not self.ladder.begin(may_go_on):
                return candidate_id
        return None

    def propose(self, candidate_id: int, experiments: int | None) -> None:
        """Have a candidate proposed, and further seeds of the baselines measured where they are due. Language
        models plan it, and the next ones, in the background."""
        if self._in_background:
            last = candidate_id + self.models.ahead
            for number in range(candidate_id, min(last, experiments or last) + 1):
                if self.store.get(number) is None:
                    self.proposals.begin(number)
        if self.proposals.at_work(candidate_id):
            self.watch.working(trial_label(candidate_id), "planner", None)
            self.proposals.wait(self.watch.tick, candidate_id)
        self._refresh_baselines(candidate_id)
        if self.store.get(candidate_id) is None:
            self.draw_and_propose(candidate_id)

    def begin(self, candidate_id: int) -> None:
        """Have a candidate measured in a slot, once one is free."""
        self.slots.begin(trial_label(candidate_id), functools.partial(self.explore, candidate_id))

    def finish(self, may_go_on: Callable[[], bool]) -> None:
        """Wait for all that was begun; then have those confirmed and published that still wait for that, and
        the claims made that are due."""
        self._wait()
        for number in [c.id for c in self.store.unfinished() if self._awaits_confirmation(c)]:
            self.begin(number)
        self._wait()
        while self.reruns.begin(may_go_on):
            self.slots.wait()
        self.ladder.run(may_go_on)

    def _wait(self) -> None:
        self.slots.wait()
        self.conclusions.wait(self.watch.tick)

    def explore(self, candidate_id: int) -> None:
        """Resume a candidate at its current state and run its trial. Judging, explaining and repairing run in
        the background while the next trial trains; a repaired candidate is scheduled again."""
        self.confirm(self.measure(self.engineer.check(self.archive.get(candidate_id))))
        if self._in_background:
            self.conclusions.begin(candidate_id)
        else:
            self.conclude(candidate_id)

    def conclude(self, candidate_id: int) -> None:
        """Score, explain and publish a candidate that was measured, or one that has failed and cannot be
        repaired."""
        candidate = self.archive.get(candidate_id)
        if self.repair(candidate) is not candidate:
            return
        candidate = self.score(candidate)
        if self._in_background and self._awaits_confirmation(candidate):
            return  # it has a turn of its own for that
        candidate = self.explain(self.confirm(candidate))
        with self.lineage.publishing:
            if not self._awaits_confirmation(candidate):  # it may have come to lead meanwhile
                self.publish(candidate)

    @property
    def _in_background(self) -> bool:
        """Whether models plan, repair, judge and explain while trials train."""
        return self.models.present and self.models.ahead > 0

    def draw_and_propose(self, candidate_id: int) -> None:
        """Draw a parent and references, have the researcher write something new, and record it."""
        created, behind = time.time(), self.turns.behind
        drawn = self.researcher.draw(candidate_id, self.archive.entries(), behind)
        proposed = self.researcher.propose(candidate_id, drawn, self._known_to(candidate_id, drawn.arm))
        self.researcher.accept(candidate_id, created, drawn, proposed, self.archive, behind)

    def measure(self, candidate: Candidate) -> Candidate:
        """Have the engineer train and evaluate it."""
        return self.engineer.measure(candidate, self.baselines, self.turns.last_known(candidate.id))

    def confirm(self, candidate: Candidate) -> Candidate:
        """Have one that would lead the lab compared at all positions before it does."""
        if not self._awaits_confirmation(candidate):
            return candidate
        return self.engineer.confirm(candidate, self.baselines, self.turns.last_known(candidate.id))

    def _awaits_confirmation(self, candidate: Candidate) -> bool:
        is_scored = candidate.state in (S.JUDGED, S.ANALYSED) and not candidate.thorough
        return is_scored and self.archive.is_led_by(candidate)

    def repair(self, candidate: Candidate) -> Candidate:
        """Have the engineer put right what failed, and begin again with the code; the same candidate where
        there is nothing to repair."""
        if candidate.commit is not None or (changed := self.engineer.repair(candidate)) is None:
            return candidate
        proposal, done = changed
        if same := self.researcher.known(candidate.arm).claim(candidate.id, proposal.code_hash):
            error = f"{done.role} made of it the same code as {same}"
            return self.states.fail(candidate, Evidence(failure=S.DUPLICATE, error=error))
        message = f"{candidate.name}: repaired by {done.role} after {done.failure.value}"
        return self.states.advance(
            candidate,
            S.PROPOSED,
            news=("candidate_repaired", message, {"role": done.role, "model": done.model}),
            proposal=proposal,
            evidence=None,
            starts=0,
            repairs=(*candidate.repairs, done),
        )

    def score(self, candidate: Candidate) -> Candidate:
        """Have the analyst judge it, and compute the fitness."""
        if candidate.state is not S.EVALUATED:
            return candidate
        judgement = self.analyst.judge(candidate, self._known_to(candidate.id, candidate.arm))
        known, found = self.baselines, candidate.measured
        against = known.against_all([found.loss])
        score = fitness.score(found, known.reference, judgement, known.noise(), against)
        return self.states.advance(candidate, S.JUDGED, score=score)

    def explain(self, candidate: Candidate) -> Candidate:
        """Have the analyst compare it with parent, siblings and baseline."""
        if candidate.state is not S.JUDGED:
            return candidate
        analysis = self.analyst.explain(candidate, self._known_to(candidate.id, candidate.arm))
        return self.states.advance(candidate, S.ANALYSED, analysis=analysis)

    def publish(self, candidate: Candidate) -> Candidate:
        """Commit it to the lineage, under refs/failed if it failed. Committing again gives the same sha."""
        if candidate.commit is not None or not (candidate.state.is_failure or candidate.state is S.ANALYSED):
            return candidate
        parent = self.archive.get(candidate.ancestor)
        if not candidate.state.is_failure:
            candidate = msgspec.structs.replace(candidate, state=S.DONE)
        sha = self.lineage.commit(candidate, self.config_text, parent.sha)
        done = msgspec.structs.replace(candidate, commit=sha)
        before, news = (
            self.store.best_id(),
            list[NewEvent]([("commit", f"{sha[:10]} {done.name}", {"sha": sha})]),
        )
        if self.archive.is_led_by(done):
            beyond = done.scored.judgement.beyond
            more = f", {beyond:.1f} points beyond the judge's 10" if beyond else ""
            words = f"{done.name} is the best so far: fitness {done.scored.fitness:.4f}{more}"
            news.append(("best", words, {}))
        self.store.put(done, *news)
        self.plans.done(done.id)
        best = self.store.best_id()
        if best == done.id:
            self.lineage.update_best(done)
        self.trials.discard_weights(done.id if best != done.id else before)
        if text := steering.published(self.store, done.id):
            self.lineage.annotate(sha, text)
        return done

    def _refresh_baselines(self, candidate_id: int) -> None:
        """Measure further seeds of the baselines where they are due. Trials wait for them: who is judged by
        them must not depend on which trial ends first."""
        due = baselines.due(self.settings.baselines, candidate_id - 1, self.store.baselines())
        if not due:
            return
        self.slots.wait()
        self.trials.further_seeds(due)
        self.baselines = Baselines(self.settings, self.store.baselines())

    @property
    def archive(self) -> Archive:
        """What the lab knows now."""
        return Archive(self.settings, self.store, self.baselines)

    def _known_to(self, candidate_id: int, arm: Arm | None) -> Archive:
        """What the lab knows, without results of candidates that may train at the same time as this one, and
        without those that its arm is not told of."""
        concurrent = self.turns.concurrent(candidate_id)
        return Archive(self.settings, self.store, self.baselines, concurrent, seen_from(arm))
