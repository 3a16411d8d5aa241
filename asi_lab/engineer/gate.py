"""What a trial may say, and when: the one gate between its words and a record.

    Ready | Checked: every check once, all passed | PREFLIGHTED | TRAINING
          | Compiled, at most once | Progress at each point of the curve, Standing at each mark, Saved between
          | Checked: every check on the trained model | Trained | Probed for each probe | nothing more

Alive may come at any time, Failed after Ready; a check that failed is followed by Failed alone. A trial that
only loads a checkpoint says Ready and Loaded, and Probed for each probe that it was to train. A server says
Ready, and Counted before it is asked anything.

Both run candidate code, so every report is a claim. What cannot be true in its place is not put right or left
out: the candidate ends as forged. Whoever keeps to the order may still lie in what no order shows, so nothing
that passes enters a score.
"""

from __future__ import annotations

import math
import re
import time
from enum import IntEnum

import msgspec

from asi_lab.protocol import (
    LEAK_CHECKS,
    MOST_TEXT,
    PREFLIGHT_CHECKS,
    TRAINED,
    Alive,
    AtMark,
    Checked,
    Compiled,
    Counted,
    Failed,
    Loaded,
    Probed,
    Progress,
    Ready,
    Report,
    Saved,
    Stage,
    Trained,
    TrialJob,
    curve_steps,
)
from asi_lab.records import CandidateState, Check, Training

S = CandidateState

FAILURES = frozenset({S.BROKEN, S.LEAKING, S.REJECTED, S.DIVERGED, S.SLOW, S.OUT_OF_MEMORY})
"""Ends that a trial may report of itself."""

LARGEST = 1e18
"""No figure that a trial claims is larger: bytes, parameters and operations a second of any machine are
less."""
LARGEST_LOSS = 1e9
ALIVE_AT_ONCE = 100
"""So many reports that say nothing may come, and one more for each second."""
SAVES_AT_ONCE = 3
"""So many checkpoints to go on from may come, and twice as many as the job asks for: each is copied."""
LAST_LINE = 10**6

_OWN_LINE = re.compile(r'architecture\.py", line (\d{1,6})\b')


class Forged(Exception):
    """A process that runs candidate code said what cannot be true; the message is the evidence."""


class Place(IntEnum):
    """How far a trial came, by its own words."""

    STARTING = 0
    CHECKING = 1
    CHECKED = 2
    PREFLIGHTED = 3
    TRAINING = 4
    CHECKED_AGAIN = 5
    PROBING = 6
    ANSWERING = 7

    @property
    def words(self) -> str:
        """For messages."""
        return self.name.lower().replace("_", " ")


class Gate:
    """Follows the reports of one trial."""

    def __init__(self, job: TrialJob, after: int = 0, *, shown: bool = False) -> None:
        """`after` is the step from which training goes on. `shown` says whether the process may know held-out
        text from its start: its checkpoint was written by one that had seen some."""
        self.job, self.shown = job, shown or job.task == "serve"
        self.place = Place.STARTING
        self._failing = self._compiled = self._standing = False
        points = [(step, Progress) for step in curve_steps(job.train.steps, after)]
        marks = [(mark, AtMark) for mark in job.marks if mark > after]
        self._stops = sorted([*points, *marks], key=lambda stop: (stop[0], stop[1] is AtMark))
        self._step = self._saved = after
        self._begun = False
        self._probes = [*job.probes]
        saves_a_second = 2 / (60 * job.train.save_minutes) if job.train.save_minutes else 0.0
        self._saves = _Limit("it saved {} times in {:.0f} seconds", SAVES_AT_ONCE, saves_a_second)
        self._alive = _still_alive()

    def admit(self, report: Report) -> Report:
        """The report as it may be kept.

        Once held-out text was shown to it, words of the trial carry nothing but a line number: language
        models read them, and could learn from them what they must not know.

        Raises:
            Forged: it cannot be true, or comes where it cannot come.
        """
        if self._failing and not isinstance(report, Failed | Alive):
            raise Forged(f"a check had failed, and it went on with {_name(report)}")
        match report:
            case Alive():
                self._alive.see()
            case Ready():
                self._move(report, Place.STARTING, Place.CHECKING)
            case Failed():
                return self._failed(report)
            case Checked():
                return self._checked(report)
            case Stage(S.PREFLIGHTED):
                self._move(report, Place.CHECKED, Place.PREFLIGHTED)
            case Stage(S.TRAINING) if self.job.task in ("train", "resume"):
                self._move(report, Place.PREFLIGHTED, Place.TRAINING)
            case Compiled():
                self._compiled_once(report)
            case Progress():
                self._progress(report)
            case AtMark():
                self._stand(report)
            case Saved():
                self._save(report)
            case Trained():
                self._trained(report)
            case Loaded() if self.job.task == "serve":
                self._move(report, Place.CHECKING, self._next_place())
            case Probed():
                self._probed(report)
            case _:
                raise Forged(f"it said {_name(report)}, which it cannot say")
        return report

    def go_on(self) -> None:
        """The scorer has measured at the mark where the trial stands."""
        self._standing = False

    def _move(self, report: Report, before: Place, after: Place) -> None:
        if self.place is not before:
            raise Forged(f"it said {_name(report)} when it was {self.place.words}")
        self.place = after

    def _in_training(self, report: Report) -> None:
        if self.place is not Place.TRAINING or self._standing:
            where = "standing still" if self._standing else self.place.words
            raise Forged(f"it said {_name(report)} when it was {where}")

    def _failed(self, report: Failed) -> Failed:
        if self.place is Place.STARTING or report.state not in FAILURES:
            raise Forged(f"it claims to have ended as {report.state.value}")
        _short("its error", report.error)
        return Failed(report.state, self._own_words(report)) if self.shown else report

    def _own_words(self, report: Failed) -> str:
        """What is left of an error: our words, and the last line of the candidate's own file that it
        names."""
        match self.place:
            case Place.ANSWERING:
                when = "when it was scored"
            case Place.PROBING:
                when = f"in {self._probes[0]}"
            case _:
                when = f"after {self._step} steps"
        return f"{report.state.value} {when}{_own_line(report.error)}"

    def _checked(self, report: Checked) -> Checked:
        names: tuple[str, ...] = PREFLIGHT_CHECKS
        if self.place is Place.CHECKING and self.job.task != "serve":
            after = Place.CHECKED
        elif self.place is Place.TRAINING and not self._stops and not self._standing:
            names, after = tuple(TRAINED + name for name in LEAK_CHECKS), Place.CHECKED_AGAIN
        else:
            raise Forged(f"it reported checks when it was {self.place.words}")
        self._failing = not all(check.passed for check in report.checks)
        found = [check.name for check in report.checks]
        rest = iter(names)
        if not (all(name in rest for name in found) if self._failing else found == [*names]):
            raise Forged(f"expected the checks {', '.join(names)}, found {len(found)} that are not these")
        for check in report.checks:
            _check_figures(check)
        self.place = after
        if not self.shown:
            return report
        return Checked(tuple(Check(c.name, c.passed, line=c.line, seconds=c.seconds) for c in report.checks))

    def _compiled_once(self, report: Compiled) -> None:
        self._in_training(report)
        mode = self.job.train.compile
        if mode == "off" or (mode == "auto" and self.job.device == "cpu") or self._compiled or self._begun:
            raise Forged("it said that it had compiled the model, where nothing was to be compiled")
        _figure("seconds", report.seconds)
        self._compiled = True

    def _progress(self, report: Progress) -> None:
        self._in_training(report)
        train = self.job.train
        self._reach(report, report.step)
        if (report.steps, report.tokens) != (train.steps, report.step * train.batch * train.context):
            claimed = f"{_shown(report.tokens)} tokens in {_shown(report.step)} of {_shown(report.steps)}"
            raise Forged(f"it claims {claimed} steps")
        _figure("loss", report.loss, LARGEST_LOSS)
        _figure("learning rate", report.learning_rate, 2 * train.learning_rate)
        _figure("tokens a second", report.tokens_per_second)
        _figure("memory", report.memory_mb)

    def _stand(self, report: AtMark) -> None:
        self._in_training(report)
        self._reach(report, report.step)
        self._standing = self.shown = True

    def _reach(self, report: Report, step: int) -> None:
        """Training came to its next stop, a point of the curve or a mark."""
        if not self._stops or (step, type(report)) != self._stops[0]:
            raise Forged(f"it said {_name(report)} after {_shown(step)} steps, where something else was next")
        self._stops.pop(0)
        self._step, self._begun = step, True

    def _save(self, report: Saved) -> None:
        self._in_training(report)
        following = self._stops[0][0] if self._stops else 0
        if not self.job.train.save_minutes or not max(self._step, self._saved + 1) <= report.step < following:
            raise Forged(f"it claims a checkpoint after {_shown(report.step)} steps")
        self._step, self._saved, self._begun = report.step, report.step, True
        self._saves.see()

    def _trained(self, report: Trained) -> None:
        self._move(report, Place.CHECKED_AGAIN, self._next_place())
        train, claims, self.shown = self.job.train, report.claims, True
        tokens = train.steps * train.batch * train.context
        if (claims.steps, claims.tokens) != (train.steps, tokens):
            raise Forged(f"it claims {_shown(claims.tokens)} tokens in {_shown(claims.steps)} steps")
        _training_figures(claims)

    def _probed(self, report: Probed) -> None:
        if self.place is not Place.PROBING or report.probe != self._probes[0]:
            raise Forged(f"it said {_name(report)} when it was {self.place.words}, or another probe was next")
        self._probes.pop(0)
        self.place = self._next_place()

    def _next_place(self) -> Place:
        """Where it stands once its model is there, and after each probe."""
        return Place.PROBING if self._probes else Place.ANSWERING


class ServerGate:
    """Follows the reports of one server."""

    def __init__(self) -> None:
        self.is_ready = False
        self._counting = False
        self._alive = _still_alive()

    def begin(self) -> None:
        """It is given its job, which it begins by counting."""
        self._counting = True

    def admit(self, report: Report) -> Report:
        """As that of `Gate`; a server may know held-out text from its start, but for what it has counted:
        that comes before it is asked anything."""
        match report:
            case Alive():
                self._alive.see()
            case Ready() if not self.is_ready:
                self.is_ready = True
            case Counted(work) if self.is_ready and self._counting:
                self._counting = False
                for what, value in (("operations", work.operations), ("bytes", work.bytes)):
                    _figure(f"{what} a token", value)
                    if value < 1:
                        raise Forged(f"its server claims that it needs no {what}")
            case Failed(state, error) if self.is_ready and state in FAILURES:
                _short("its error", error)
                return Failed(state, f"{state.value} when it was scored{_own_line(error)}")
            case _:
                raise Forged(f"its server said {_name(report)}, which it cannot say")
        return report


class _Limit:
    """Bounds how often a process does something: so often at once, and so often a second from then on."""

    def __init__(self, words: str, at_once: int, a_second: float) -> None:
        """`words` tell how often, and in how many seconds."""
        self._words, self._at_once, self._a_second = words, at_once, a_second
        self._count, self._begun = 0, time.monotonic()

    def see(self) -> None:
        """It has done it again.

        Raises:
            Forged: too often.
        """
        self._count += 1
        seconds = time.monotonic() - self._begun
        if self._count > self._at_once + self._a_second * seconds:
            raise Forged(self._words.format(self._count, seconds))


def _still_alive() -> _Limit:
    return _Limit("it said {} times that it is alive, and nothing else", ALIVE_AT_ONCE, 1.0)


def _name(report: Report) -> str:
    kind = type(report).__name__
    return f"{kind} {report.state.value}" if isinstance(report, Stage) else kind


def _own_line(error: str) -> str:
    lines = _OWN_LINE.findall(error)
    return f', at File "architecture.py", line {lines[-1]}' if lines else ""


def _short(what: str, text: str) -> None:
    if len(text) > MOST_TEXT:
        raise Forged(f"{what} has {len(text):,} characters; at most {MOST_TEXT:,} are allowed")


def _figure(what: str, value: float, largest: float = LARGEST) -> None:
    """A claim must be a number from 0 to the largest that can be."""
    if not 0 <= value <= largest:
        raise Forged(f"it claims {_shown(value)} as {what}")


def _shown(value: float) -> str:
    """A claimed number in three digits. A whole one may have thousands, which would be a text of its own."""
    return f"{value:.3g}" if abs(value) <= LARGEST else "a number that cannot be"


def _check_figures(check: Check) -> None:
    _short(f"the detail of check {check.name}", check.detail)
    numbers = [number for number in (check.value, check.tolerance) if number is not None]
    line = check.line if check.line is not None else 1
    if not all(map(math.isfinite, numbers)) or not 1 <= line <= LAST_LINE:
        raise Forged(f"check {check.name} has figures that cannot be")
    _figure("seconds", check.seconds)


def _training_figures(claims: Training) -> None:
    for name, value in msgspec.structs.asdict(claims).items():
        if value is not None:
            _figure(name, value, LARGEST_LOSS if name == "train_loss" else LARGEST)
