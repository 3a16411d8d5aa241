"""Rules that end a training run early. Each end carries its evidence as a failed check.

    not_finite       the loss left the finite numbers
    divergence       the smoothed loss rose too far over its lowest
    step_time        steps take too many times as long as the baseline's
    compile_time     no first step in time
    progress         far less learnt by a mark than the baseline had
    pruning          further over the baseline's curve than any good candidate is likely to be

Training losses are claims of the trial; held-out losses come from the scorer.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from statistics import median

import msgspec

from asi_lab.protocol import Progress
from asi_lab.records import CandidateState, Check, HeldOut
from asi_lab.settings import Supervise

SMOOTHING = 0.9
SETTLED_POINTS = 20
"""Points of the curve before divergence and step times are judged."""
LATEST_STEPS = 10
BEYOND_NOISE = 10.0
"""Progress is judged at a mark once the baseline has learnt at least this many sd of one run by then."""


class Ended(Exception):
    """The candidate ends in `state`; `check` is the evidence where a rule ended it."""

    def __init__(self, state: CandidateState, error: str, check: Check | None = None) -> None:
        super().__init__(error)
        self.state, self.check = state, check


class Expected(msgspec.Struct, frozen=True):
    """The baseline at one mark: mean held-out loss (nats per token), and the sd of one run there."""

    loss: float
    noise: float


class Expectations(msgspec.Struct, frozen=True):
    """What a candidate is held against. Empty for the baselines themselves.

    `marks` are by steps done. `seconds_per_step` is the baseline's. `chance` is the loss of knowing nothing,
    the logarithm of the vocabulary. `prune_above` is, by mark, how many sd over the baseline end a
    run. `most_parameters` bound its checkpoint, `most_cpu_seconds` what all its processes take.
    """

    marks: dict[int, Expected] = {}
    seconds_per_step: float | None = None
    chance: float = math.inf
    prune_above: dict[int, float] = {}
    most_parameters: int | None = None
    most_cpu_seconds: float | None = None


class Monitor:
    """Follows one training run. Every method raises `Ended` where a rule ends it."""

    def __init__(
        self, rules: Supervise, expected: Expectations, now: Callable[[], float], earlier: float = 0.0
    ) -> None:
        """`now` is the clock, in seconds; `earlier` are those of training that an earlier, cut-off run
        took."""
        self.rules, self.expected, self._now = rules, expected, now
        self._smoothed = self._lowest = math.inf
        self._points = 0
        self._began: float | None = None
        self._last: tuple[float, int] | None = None  # when which step was reported
        self._paused = 0.0
        self._steps: deque[float] = deque(maxlen=LATEST_STEPS)
        self.seconds = earlier
        """Wall time of the training so far, without compilation and pauses at marks, up to the last point."""

    def begin(self) -> None:
        """Training begins."""
        self._began = self._now()

    def compiled(self) -> None:
        """What came so far was compilation; the clock starts now."""
        if self._last is None:
            self._began = self._now()

    def tick(self) -> None:
        """Time passes."""
        if self._began is None or self._last is not None:
            return
        waited, limit = self._now() - self._began, self.rules.compile_seconds
        if waited > limit:
            words = f"no training step within {limit:g} s: compilation takes too long"
            raise _ended(CandidateState.SLOW, "compile_time", waited, limit, words)

    def see(self, point: Progress) -> None:
        """One point of the training curve."""
        self._clock(point.step)
        if not math.isfinite(point.loss):
            words = f"step {point.step}: loss {point.loss}"
            raise _ended(CandidateState.DIVERGED, "not_finite", point.loss, None, words)
        self._points += 1
        before = self._smoothed if math.isfinite(self._smoothed) else point.loss
        self._smoothed = SMOOTHING * before + (1 - SMOOTHING) * point.loss
        rise, limit = self._smoothed - self._lowest, self.rules.divergence
        self._lowest = min(self._lowest, self._smoothed)
        if self._points > SETTLED_POINTS and rise > limit:
            words = (
                f"step {point.step}: the smoothed training loss {self._smoothed:.3f} lies {rise:.2f} nats "
                f"over its lowest, {self._lowest:.3f}"
            )
            raise _ended(CandidateState.DIVERGED, "divergence", rise, limit, words)

    def see_held_out(self, found: HeldOut) -> None:
        """The held-out loss at a mark."""
        self._paused += found.seconds
        expected = self.expected.marks.get(found.step)
        if expected is None:
            return
        self._progress(found, expected)
        above, limit = (
            (found.loss - expected.loss) / expected.noise,
            self.expected.prune_above.get(found.step),
        )
        if limit is not None and above > limit:
            words = (
                f"after {found.step} steps the held-out loss {found.loss:.4f} lies {above:+.1f} noise floors "
                f"({expected.noise:.4f} nats) from the baseline's {expected.loss:.4f}; calibrated limit "
                f"{limit:+.1f}"
            )
            raise _ended(CandidateState.PRUNED, "pruning", above, limit, words)

    def _progress(self, found: HeldOut, expected: Expected) -> None:
        usual, mine = self.expected.chance - expected.loss, self.expected.chance - found.loss
        if not math.isfinite(usual) or usual < BEYOND_NOISE * expected.noise:
            return
        share, limit = mine / usual, self.rules.least_progress
        if share < limit:
            words = (
                f"after {found.step} steps the held-out loss is {found.loss:.3f}, the baseline's "
                f"{expected.loss:.3f}, that of knowing nothing {self.expected.chance:.3f}"
            )
            raise _ended(CandidateState.PRUNED, "progress", share, limit, words)

    def _clock(self, step: int) -> None:
        """Take the time of the steps since the last point, without pauses."""
        now = self._now()
        last, self._last = self._last, (now, step)
        paused, self._paused = self._paused, 0.0
        if self._began is not None:
            self.seconds += max(0.0, now - (last[0] if last else self._began) - paused)
        if last is None or step <= last[1]:
            return
        self._steps.append((now - last[0] - paused) / (step - last[1]))
        usual = self.expected.seconds_per_step
        if usual is None or self._points < SETTLED_POINTS:
            return
        ratio, limit = median(self._steps) / usual, self.rules.step_ratio
        if ratio > limit:
            words = f"step {step}: a step takes {median(self._steps):.3g} s, {ratio:.1f} times the baseline's"
            raise _ended(CandidateState.SLOW, "step_time", ratio, limit, words)


def _ended(state: CandidateState, rule: str, value: float, limit: float | None, words: str) -> Ended:
    return Ended(state, f"{rule}: {words}", Check(rule, False, value, limit, words))
