"""What a lab is doing, gathered from its store without disturbing the engine."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Literal, cast

import msgspec

from asi_lab.events import Doing, Event, Heartbeat, LiveAnswer
from asi_lab.lab import Lab, Store, commands, meta, steering, trial_label
from asi_lab.lab.spending import Spent
from asi_lab.lab.steering import Steering
from asi_lab.lab.summary import Summary
from asi_lab.protocol import Progress
from asi_lab.records import SEED_ID, Candidate
from asi_lab.settings import Settings
from asi_lab.view import leaderboard, verdicts
from asi_lab.view.leaderboard import Board

EngineState = Literal["never started", "preparing data", "running", "paused", "stopped", "lost contact"]
ENDS = {"pause": 0, "resume": 0, "stop": 1, "stop_now": 2}
"""Orders to the engine itself, by how final they are."""
LOST_AFTER = 15.0
"""Seconds without a heartbeat after which the engine counts as lost; it beats about once a second."""
MOST_CALLS = 10
"""Calls to language models that one candidate may wait for, each as long as a silence may last."""
LATEST = 8
"""How many of the latest candidates estimates rest on."""


class EngineStatus(msgspec.Struct, frozen=True):
    """The engine as seen from outside. `beat_age` is in seconds, `started` in seconds since the epoch;
    `ordered` is the order to pause, go on or end that is not carried out yet, empty where there is none."""

    state: EngineState
    pid: int | None = None
    beat_age: float | None = None
    started: float | None = None
    ordered: str = ""

    @property
    def pending(self) -> str:
        """The order that is not carried out yet, in words; empty where there is none."""
        return f"{self.ordered.replace('_', ' ')} pending" if self.ordered else ""

    @property
    def words(self) -> str:
        """Its state, and what is pending."""
        return f"{self.state}, {self.pending}" if self.pending else self.state

    @property
    def holds(self) -> bool:
        """Whether it is paused, or is to be."""
        return self.ordered == "pause" or (self.state == "paused" and self.ordered != "resume")

    @property
    def is_there(self) -> bool:
        """Whether an engine is at work, or about to be."""
        return self.state in ("preparing data", "running", "paused")


class Work(msgspec.Struct, frozen=True):
    """The trial at work. `left` is the estimate of its remaining seconds, `basis` what that rests on."""

    label: str
    stage: str
    name: str | None = None
    step: int | None = None
    steps: int | None = None
    loss: float | None = None
    tokens_per_second: float | None = None
    left: float | None = None
    basis: str = ""


class Pace(msgspec.Struct, frozen=True):
    """Mean seconds a candidate took, from draw to end, over the `of` latest; divided by the number of trials
    at the same time."""

    seconds: float
    of: int

    @property
    def basis(self) -> str:
        """What an estimate from it rests on."""
        return f"mean of the last {self.of} candidates" if self.of > 1 else "one candidate so far"


class Seconds(msgspec.Struct, frozen=True):
    """Mean seconds of the stages over the `of` latest scored candidates."""

    training: float
    evaluation: float
    whole: float
    of: int


class Waiting(msgspec.Struct, frozen=True):
    """A candidate on its way that is not in a trial."""

    id: int
    state: str


class Budget(msgspec.Struct, frozen=True):
    """What the search may use; 0 or None is no limit. `until` is in seconds since the epoch."""

    dollars: float = 0.0
    tokens: int = 0
    until: float | None = None


class Status(msgspec.Struct, frozen=True):
    """A lab at one moment. `states` counts candidates by state, the seed left out; `board` holds the
    best candidate only; `wanted` is how many candidates the search is to reach, where that is set; `spent` is
    what language models and trials have cost; `talks` are the answers that models are giving now; `steering`
    is what people asked of the search; `queue` are the other candidates on their way. `beside` are trials
    at work at the same time as the one in `doing`, in the order in which they began. `claims` says how many
    candidates are verified, empty where none was promoted."""

    lab: str
    preset: str
    seed: int
    time: float
    engine: EngineStatus
    doing: Work | None
    wanted: int | None
    finished: int
    left: float | None
    states: dict[str, int]
    baseline_runs: int
    pace: Pace | None
    seconds: Seconds | None
    board: Board | None
    spent: Spent
    talks: tuple[LiveAnswer, ...]
    events: tuple[Event, ...]
    steering: Steering = Steering()
    queue: tuple[Waiting, ...] = ()
    budget: Budget = Budget()
    beside: tuple[Work, ...] = ()
    claims: str = ""

    @property
    def at_work(self) -> tuple[Work, ...]:
        """All trials at work."""
        return (self.doing, *self.beside) if self.doing else ()


def pace(summaries: Sequence[Summary], settings: Settings, slots: int = 1) -> Pace | None:
    """How fast candidates come, with `slots` trials at the same time."""
    latest = [took for s, took in _timed(summaries, settings, slots) if s.state.is_terminal][-LATEST:]
    return Pace(fmean(latest) / slots, len(latest)) if latest else None


def slots_of(store: Store) -> int:
    """How many trials the engine runs at the same time, or the last one ran."""
    beat = meta.ENGINE.read(store)
    return beat.slots if beat else 1


def _timed(summaries: Sequence[Summary], settings: Settings, slots: int) -> list[tuple[Summary, float]]:
    """Candidates whose times tell how long they took, with the seconds. Those that outlasted every limit
    were suspended in between, or the clock was set forward; those that ended before they began saw it set
    back."""
    models = MOST_CALLS * settings.agents.timeout_seconds if settings.agents.any_model else 0.0
    limit, ended = settings.limits.trial_seconds + models, {s.id: s.updated for s in summaries}
    timed = ((s, _took(s, ended, slots)) for s in summaries if s.id != SEED_ID)
    return [(s, took) for s, took in timed if 0 <= took <= limit]


def _took(summary: Summary, ended: Mapping[int, float], slots: int) -> float:
    """Seconds between the start of a candidate's trial and its end. It may have been proposed much earlier,
    while others were training. Its trial started when all earlier ones but `slots` - 1 had ended."""
    near = range(summary.id - 2 * slots + 1, summary.id)
    ends = sorted((ended[number] for number in near if number in ended), reverse=True)
    before = ends[slots - 1] if len(ends) >= slots else summary.created
    began = summary.created if before > summary.updated else max(summary.created, before)
    return summary.updated - began


def finished(summaries: Sequence[Summary]) -> int:
    """Candidates that came to an end, the seed left out."""
    return sum(s.id != SEED_ID and s.state.is_terminal for s in summaries)


def time_left(summaries: Sequence[Summary], wanted: int, found: Pace | None, now: float) -> float | None:
    """Seconds until the lab holds `wanted` candidates, None without a pace."""
    if found is None:
        return None
    started = next((s.created for s in summaries if not s.state.is_terminal), now)
    missing = max(0, wanted - finished(summaries))
    return missing * found.seconds - _spent(started, now, found) if missing else 0.0


def _spent(started: float, now: float, found: Pace) -> float:
    """Seconds that a candidate has had, as far as the pace allows for them and the clock was not set."""
    return min(max(0.0, now - started), found.seconds)


def read(
    lab: Lab,
    settings: Settings,
    store: Store | None,
    events: int = 6,
    known: tuple[Sequence[Summary], Board | None] | None = None,
) -> Status:
    """The status of a lab; `store` is None before an engine has made one. `known` are summaries and board
    where the caller has them already."""
    now = time.time()
    summaries: Sequence[Summary] = known[0] if known else store.summaries() if store else []
    beat = meta.ENGINE.read(store) if store else None
    engine = _engine(beat, now) if beat else _without_beat(lab)
    if engine.is_there:
        engine = msgspec.structs.replace(engine, ordered=_ordered(lab, beat.ordered if beat else "", engine))
    slots = beat.slots if beat else 1
    speed = pace(summaries, settings, slots)
    wanted = beat.experiments if beat else None
    board = known[1] if known else leaderboard.read(store, settings) if store else None
    alive = beat if engine.state in ("running", "paused") else None
    doing = [_work(one, slots, store, speed, now) for one in (alive.doing if alive else ()) if store]
    return Status(
        lab=str(lab.path),
        preset=settings.preset,
        seed=settings.seed,
        time=now,
        engine=engine,
        doing=doing[0] if doing else None,
        wanted=wanted,
        finished=finished(summaries),
        left=time_left(summaries, wanted, speed, now) if wanted and alive else None,
        states=dict(Counter(s.state.value for s in summaries if s.id != SEED_ID)),
        baseline_runs=len(store.baselines()) if store else 0,
        pace=speed,
        seconds=_seconds(store, _timed(summaries, settings, slots)) if store else None,
        board=msgspec.structs.replace(board, candidates=board.candidates[:1]) if board else None,
        spent=store.ledger.spent() if store else Spent(),
        talks=alive.talks if alive else (),
        events=tuple(store.last_events(events)) if store else (),
        steering=steering.read(store) if store else Steering(),
        queue=tuple(_queue(summaries, [one.label for one in doing or (beat.doing[:1] if beat else ())])),
        budget=Budget(
            settings.agents.most_dollars, settings.agents.most_tokens, alive.until if alive else None
        ),
        beside=tuple(doing[1:]),
        claims=verdicts.of_store(settings, store) if store else "",
    )


def _queue(summaries: Sequence[Summary], at_work: Sequence[str]) -> Iterator[Waiting]:
    for summary in summaries:
        if not summary.state.is_terminal and trial_label(summary.id) not in at_work:
            yield Waiting(summary.id, summary.state.value)


def _without_beat(lab: Lab) -> EngineStatus:
    pid = lab.engine_pid()
    return EngineStatus("never started") if pid is None else EngineStatus("preparing data", pid)


def _engine(beat: Heartbeat, now: float) -> EngineStatus:
    """A beat from the future, too, is none of an engine that beats: the clock was set back after it."""
    age, state = now - beat.time, cast(EngineState, beat.state)
    if state != "stopped" and (abs(age) > LOST_AFTER or not _is_alive(beat.pid)):
        state = "lost contact"
    return EngineStatus(state, beat.pid, max(0.0, age), beat.started)


def _ordered(lab: Lab, taken: str, engine: EngineStatus) -> str:
    """The order that the engine has `taken` and not carried out yet, or not even taken: what comes later
    counts, but an end is not taken back."""
    ordered = "" if (taken, engine.state) == ("pause", "paused") else taken
    for _, command in commands.pending(lab.commands):
        if command is not None and ENDS.get(command.action, -1) >= ENDS.get(ordered, 0):
            ordered = command.action
    return ordered


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _work(doing: Doing, slots: int, store: Store, speed: Pace | None, now: float) -> Work:
    """One trial at work. With several `slots` each takes that many times the pace of candidates."""
    label, progress = doing.label, doing.progress
    candidate = store.get(int(label)) if label.isdigit() else None
    own = None if speed is None else msgspec.structs.replace(speed, seconds=slots * speed.seconds)
    left, basis = _left(progress, candidate, own, now)
    return Work(
        label=label,
        stage=doing.stage,
        name=candidate.name if candidate else None,
        step=progress.step if progress else None,
        steps=progress.steps if progress else None,
        loss=progress.loss if progress else None,
        tokens_per_second=progress.tokens_per_second if progress else None,
        left=left,
        basis=basis,
    )


def _left(
    progress: Progress | None, candidate: Candidate | None, speed: Pace | None, now: float
) -> tuple[float | None, str]:
    """Seconds the trial still needs: by the pace of others, before that by its own training speed."""
    if candidate is not None and speed is not None:
        return speed.seconds - _spent(candidate.created, now, speed), speed.basis
    if progress is not None and progress.tokens_per_second and progress.step:
        missing = progress.tokens / progress.step * (progress.steps - progress.step)
        return missing / progress.tokens_per_second, "training alone, at its present speed"
    return None, ""


def _seconds(store: Store, timed: Sequence[tuple[Summary, float]]) -> Seconds | None:
    rows = []
    for summary, whole in [(s, took) for s, took in timed if s.fitness is not None][-LATEST:]:
        candidate = store.get(summary.id)
        evidence = candidate.evidence if candidate else None
        if evidence and evidence.training and evidence.evaluation:
            rows.append((evidence.training.seconds, evidence.evaluation.seconds, whole))
    if not rows:
        return None
    training, evaluation, whole = (fmean(column) for column in zip(*rows, strict=True))
    return Seconds(training, evaluation, whole, len(rows))
