"""A finished search played again: the lab as it was at each moment, from its own events and records.

The clock of a recording runs over the times at which an engine was at work, faster than they did. What a
candidate's record says is shown as far as the candidate had come then. A repaired candidate shows its last
code from the beginning, since the store keeps no other.
"""

from __future__ import annotations

import bisect
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from asi_lab.errors import UsageError
from asi_lab.events import Event, LiveAnswer
from asi_lab.lab import Lab, Store, run_label, spending
from asi_lab.lab.spending import Cost
from asi_lab.lab.steering import Steering
from asi_lab.lab.summary import Summary
from asi_lab.llm import bandit
from asi_lab.llm.choice import arms_of
from asi_lab.llm.record import Exchange
from asi_lab.records import SEED_ID, Candidate, CandidateState, Evidence
from asi_lab.scoring.baselines import Baselines
from asi_lab.settings import Settings
from asi_lab.tui.snapshot import NO_CURVE, Snapshot
from asi_lab.view import leaderboard, status
from asi_lab.view.page import Dossier, dossier
from asi_lab.view.status import EngineStatus, Status, Work
from asi_lab.view.transcript import recorded

S = CandidateState
Steps = list[tuple[float, CandidateState]]
WHOLE_SECONDS = 90.0
"""How long a recording takes at first."""
SPEEDS = (1, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 3600)
LATEST = 6
_EVALUATED, _JUDGED = list(S).index(S.EVALUATED), list(S).index(S.JUDGED)
SECONDS = -1
"""The column of a series that counts seconds."""


class PlaybackClock:
    """Recorded time, which can be held, moved and run faster. `spans` are the recorded times of an engine at
    work, as seconds since the epoch. Usable from any thread."""

    def __init__(self, spans: Sequence[tuple[float, float]]) -> None:
        self.spans = list(spans)
        self.length = sum(end - begin for begin, end in spans)
        fitting = bisect.bisect_left(SPEEDS, self.length / WHOLE_SECONDS)
        self.speed = SPEEDS[min(fitting, len(SPEEDS) - 1)]
        self.held = False
        self._at, self._since, self._lock = 0.0, time.monotonic(), threading.Lock()

    @property
    def position(self) -> float:
        """Seconds played of `length`."""
        with self._lock:
            return self._position()

    @property
    def now(self) -> float:
        """The recorded moment, in seconds since the epoch."""
        left = self.position
        for begin, end in self.spans:
            if left <= end - begin:
                return begin + left
            left -= end - begin
        return self.spans[-1][1]

    @property
    def over(self) -> bool:
        """Whether all was played."""
        return self.position >= self.length

    def hold(self) -> None:
        """Stand still, or go on; from the beginning where all was played."""
        with self._lock:
            at = self._position()
            self._at, self._since = (0.0 if at >= self.length and not self.held else at), time.monotonic()
            self.held = not self.held if at < self.length else False

    def move(self, share: float) -> None:
        """Go forward, or back, by a share of the whole."""
        with self._lock:
            self._at = min(max(0.0, self._position() + share * self.length), self.length)
            self._since = time.monotonic()

    def faster(self, steps: int) -> None:
        """Run faster by `steps` steps, or slower where they are negative."""
        with self._lock:
            self._at, self._since = self._position(), time.monotonic()
            place = SPEEDS.index(self.speed) + steps
            self.speed = SPEEDS[min(max(0, place), len(SPEEDS) - 1)]

    def _position(self) -> float:
        if self.held:
            return self._at
        return min(self._at + (time.monotonic() - self._since) * self.speed, self.length)


class Recording:
    """The store of a finished search, read as of the clock's moment."""

    def __init__(self, lab: Lab) -> None:
        """Raises `UsageError` where nothing was searched, `LabError` where the lab cannot be read."""
        self.lab, self._lock = lab, threading.Lock()
        self.settings: Settings = lab.settings()
        if not lab.has_results():
            raise UsageError(f"{lab.path}: expected a search to play again; none was made here yet.")
        self._store = Store.open_readonly(lab.store)
        self._events = self._all_events(self._store)
        self._times = [event.time for event in self._events]
        self._final = {summary.id: summary for summary in self._store.summaries()}
        self._runs = {run_label(run.architecture, run.seed_index): run for run in self._store.baselines()}
        self._steps = _steps(self._events, self._final)
        self._entries: dict[int, list[Cost]] = defaultdict(list)
        for entry in self._store.ledger.entries().values():
            if entry["candidate"] is not None:
                self._entries[entry["candidate"]].append(entry)
        self._talks = [
            (call.started + call.reply.seconds, LiveAnswer(number, call.role, call.model, call.started))
            for number, entries in self._entries.items()
            if spending.of_models(entries)
            for call in recorded(self._store, number)
        ]
        self.clock = PlaybackClock(_spans(self._events))
        self._shown: tuple[int, Snapshot] | None = None

    @staticmethod
    def _all_events(store: Store) -> tuple[Event, ...]:
        events: list[Event] = []
        while more := store.events(events[-1].seq if events else 0):
            events += more
        if not events:
            raise UsageError("expected a search to play again; found no events.")
        return tuple(events)

    def read(self) -> Snapshot:
        """The lab at the clock's moment."""
        now = self.clock.now
        count = bisect.bisect_right(self._times, now)
        with self._lock:
            if self._shown is None or self._shown[0] != count:
                self._shown = (count, self._at(count, now))
            found = self._shown[1]
            at_work = self._doing(now, found.summaries, count)
            status = msgspec.structs.replace(
                found.status,
                time=now,
                doing=at_work[0] if at_work else None,
                beside=tuple(at_work[1:]),
                engine=EngineStatus("stopped" if self.clock.over else "running"),
                talks=tuple(talk for end, talk in self._talks if talk.started <= now < end),
            )
            return msgspec.structs.replace(found, status=status)

    def candidate(self, number: int) -> Candidate | None:
        """A record as far as it had come."""
        state = self._state(number)
        found = self._store.get(number) if state is not None else None
        return found if found is None or state is None else _as_of(found, state)

    def dossier(self, number: int) -> Dossier | None:
        """What a candidate's page is made of, as far as it had come."""
        found = self.candidate(number)
        if found is None:
            return None
        board = self._shown[1].board if self._shown else None
        known = dossier(found, self._store, self.settings, board)
        return msgspec.structs.replace(known, spent=spending.total(self.costs(number)))

    def series(self, run: str) -> NDArray[np.float32]:
        """A curve as far as it had come."""
        begun = self._begun(run)
        if begun is None:
            return NO_CURVE
        rows = self._store.series(run)
        return rows[rows[:, SECONDS] <= self.clock.now - begun]

    def calls(self, number: int) -> list[Exchange]:
        """The calls that had been answered."""
        now = self.clock.now
        found = recorded(self._store, number)
        return [one for one in found if one.started + one.reply.seconds <= now]

    def costs(self, number: int) -> list[Cost]:
        """The ledger's entries of a candidate, as far as the calls had been answered; of trials once it
        ended."""
        state, entries = self._state(number), self._entries[number]
        if state is not None and state.is_terminal:
            return entries
        answered = Counter(call.role for call in self.calls(number))
        shown = []
        for entry in entries:
            if answered[entry["role"]] > 0:
                answered[entry["role"]] -= 1
                shown.append(entry)
        return shown

    def arms(self) -> list[bandit.Arm]:
        """The state of the bandit at the end."""
        return arms_of(self.settings.agents, self._store)

    def close(self) -> None:
        """Close the store."""
        self._store.close()

    def _at(self, count: int, now: float) -> Snapshot:
        """The snapshot after the first `count` events."""
        events = self._events[:count]
        numbers = {number for number, steps in self._steps.items() if steps[0][0] <= now}
        summaries = tuple(
            _summary(self._final[n], *self._step(n, now)) for n in sorted(numbers) if n in self._final
        )
        labels = [e.data.get("label") for e in events if e.kind == "baseline_measured"]
        runs = [self._runs[label] for label in labels if label in self._runs]
        measured = Baselines.measured(self.settings, runs)
        board = leaderboard.board(measured, summaries) if measured else None
        return Snapshot(self._status(events, summaries, len(runs), board), board, summaries, events)

    def _status(self, events: Sequence[Event], summaries: Sequence[Summary], runs: int, board: Any) -> Status:
        speed = status.pace(summaries, self.settings, status.slots_of(self._store))
        spent = spending.total(e for s in summaries if s.state.is_terminal for e in self._entries[s.id])
        wanted = max(self._final, default=0)
        finished = status.finished(summaries)
        return Status(
            lab=str(self.lab.path),
            preset=self.settings.preset,
            seed=self.settings.seed,
            time=0.0,
            engine=EngineStatus("running"),
            doing=None,
            wanted=wanted,
            finished=finished,
            left=None,
            states=dict(Counter(s.state.value for s in summaries if s.id != SEED_ID)),
            baseline_runs=runs,
            pace=speed,
            seconds=None,
            board=msgspec.structs.replace(board, candidates=board.candidates[:1]) if board else None,
            spent=spent,
            talks=(),
            events=tuple(events[-LATEST:]),
            steering=Steering(),
        )

    def _doing(self, now: float, summaries: Sequence[Summary], count: int) -> list[Work]:
        """The trials at work: the candidates that train, else the next baseline run."""
        at_work = (S.CHECKED, S.PREFLIGHTED, S.TRAINING, S.TRAINED)
        training = [summary for summary in summaries if summary.state in at_work]
        if training:
            return [self._trial(f"{s.id:04d}", s.state.value, s.name) for s in training]
        following = next((e for e in self._events[count:] if e.kind == "baseline_measured"), None)
        started = any(e.kind == "candidate_proposed" for e in self._events[:count])
        if following is None or (started and following.time - now > WHOLE_SECONDS):
            return []
        return [self._trial(str(following.data.get("label", "")), "training", None)]

    def _trial(self, label: str, stage: str, name: str | None) -> Work:
        rows = self.series(label)
        if not len(rows):
            return Work(label, stage, name)
        step, _, loss, _, speed, *_ = (float(value) for value in rows[-1])
        return Work(label, stage, name, int(step), self.settings.train.steps, loss, speed)

    def _begun(self, run: str) -> float | None:
        """When a run's training began; None where it had not, or where there is no such run."""
        if run.isdecimal():
            steps = self._steps.get(int(run), [])
            times = [when for when, state in steps if state is S.TRAINING and when <= self.clock.now]
            return times[-1] if times else None
        measured = next(
            (e for e in self._events if e.kind == "baseline_measured" and e.data.get("label") == run), None
        )
        if measured is None:
            return None
        rows = self._store.series(run)
        evaluation = self._runs[run].evidence.evaluation if run in self._runs else None
        took = (float(rows[-1, SECONDS]) if len(rows) else 0.0) + (evaluation.seconds if evaluation else 0.0)
        return measured.time - took

    def _step(self, number: int, now: float) -> tuple[float, CandidateState]:
        """The latest step of a candidate that had been begun, and its time."""
        return [step for step in self._steps[number] if step[0] <= now][-1]

    def _state(self, number: int) -> CandidateState | None:
        now, steps = self.clock.now, self._steps.get(number)
        return self._step(number, now)[1] if steps and steps[0][0] <= now else None


def _spans(events: Sequence[Event]) -> list[tuple[float, float]]:
    """From when to when engines were at work; one that was killed has no end but its last event."""
    spans: list[tuple[float, float]] = []
    begin = last = events[0].time
    for event in events:
        if event.kind == "engine_started" and event.time > last:
            spans.append((begin, last))
            begin = event.time
        last = event.time
    spans.append((begin, last))
    return [(begin, end) for begin, end in spans if end > begin] or [(begin, begin + 1.0)]


def _steps(events: Sequence[Event], final: Mapping[int, Summary]) -> dict[int, Steps]:
    """The states that each candidate came to, with their times."""
    steps: dict[int, Steps] = {}
    for event in events:
        if event.kind == "note" and event.message.startswith("seed architecture"):
            steps[SEED_ID] = [(event.time, S.DONE)]
        if event.candidate is None:
            continue
        if event.kind in ("candidate_proposed", "candidate_repaired"):
            state: CandidateState | None = S.PROPOSED
        elif event.kind == "candidate_state":
            state = S(event.data["state"]) if "state" in event.data else None
        else:
            known = steps.get(event.candidate, [])
            state = S.DONE if event.kind == "commit" and not (known and known[-1][1].is_failure) else None
        if state is not None:
            steps.setdefault(event.candidate, []).append((event.time, state))
    for number, known in steps.items():
        end = final[number].state if number in final else known[-1][1]
        if end.is_terminal:  # a duplicate is one from the beginning, without an event of its own
            known[-1] = (known[-1][0], end)
    return steps


def _reached(state: CandidateState, step: int) -> bool:
    return not state.is_failure and list(S).index(state) >= step


def _summary(final: Summary, when: float, state: CandidateState) -> Summary:
    """A summary as it was when its candidate had come to `state`."""
    if state is final.state:
        return final
    scored = _reached(state, _JUDGED)
    return msgspec.structs.replace(
        final,
        state=state,
        updated=when,
        loss=final.loss if _reached(state, _EVALUATED) else None,
        loss_noise=final.loss_noise if scored else None,
        fitness=final.fitness if scored else None,
        fitness_noise=final.fitness_noise if scored else None,
        fitness_spread=final.fitness_spread if scored else None,
        benchmark_gain=final.benchmark_gain if scored else None,
        benchmark_noise=final.benchmark_noise if scored else None,
        judge=final.judge if scored else None,
        params=final.params if _reached(state, _EVALUATED) else None,
        commit=None,
    )


def _as_of(final: Candidate, state: CandidateState) -> Candidate:
    """A record as it was when its candidate had come to `state`."""
    if state is final.state or final.evidence is None:
        return final
    evidence = final.evidence if _reached(state, _EVALUATED) else Evidence(final.evidence.checks)
    return msgspec.structs.replace(
        final,
        state=state,
        evidence=evidence,
        score=final.score if _reached(state, _JUDGED) else None,
        analysis=final.analysis if state is S.ANALYSED else None,
        commit=None,
    )
