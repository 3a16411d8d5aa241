"""Which candidate is trained next, and which earlier results it may use.

Several candidates may be under way: training at the same time, or with models that plan, repair and explain.
Which of them ends first is chance. So a candidate waits until all that lie far enough before it have ended,
and what is known to it is bounded by its id.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from asi_lab.common import background
from asi_lab.common.background import Background
from asi_lab.engineer.slots import Slots
from asi_lab.lab import Store, trial_label
from asi_lab.lab.summary import Summary
from asi_lab.settings import Settings


class Turns:
    """The order of candidates in one search."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        slots: Slots,
        conclusions: Background,
        ahead: int,
        tick: Callable[[], None],
    ) -> None:
        """`conclusions` are candidates that are concluded in the background, `ahead` is how many are proposed
        ahead. `tick` is called while a turn waits."""
        self.store, self.slots, self.conclusions = store, slots, conclusions
        self.ahead, self._tick = ahead, tick
        self.apart = 2 * (settings.search.slots - 1)
        """How far apart the ids of two candidates that train at the same time may lie. With twice the other
        slots a trial may take about twice as long as its neighbours' before they wait for it."""

    @property
    def behind(self) -> int:
        """How many candidates before its own a draw does not count on: they may be under way."""
        return 2 * self.ahead + self.apart

    def concurrent(self, candidate_id: int) -> range:
        """Ids that may be training at the same time as this candidate, including its own."""
        return range(candidate_id - self.apart, candidate_id + self.apart + 1)

    def last_known(self, candidate_id: int) -> int:
        """The last id whose result may be used when this candidate is measured."""
        return candidate_id - 1 - self.apart

    def next(self, experiments: int | None) -> int | None:
        """Whose turn it is, once a slot is free: the first candidate that is not finished and that nobody is
        at work on, else a new one; None where the lab holds `experiments` candidates, all finished."""
        while True:
            self.slots.settle()
            self.conclusions.settled()
            summaries = self.store.summaries()
            candidate_id = self._first(summaries)
            over = experiments is not None and candidate_id > experiments
            oldest = candidate_id - max(1, self.ahead) - self.apart
            before = [s.id for s in summaries if s.commit is None and s.id < candidate_id]
            late = before if over else [number for number in before if number <= oldest]
            if not late and (over or self.slots.has_room):
                return None if over else candidate_id
            # Those that are late may come back, and draws count on their ends.
            background.wait_for_one([*self.slots.begun, *self.conclusions.begun], self._tick)

    def _first(self, summaries: Sequence[Summary]) -> int:
        """The first candidate that waits for a turn, or the next new one."""
        for expected, summary in enumerate(summaries):
            if summary.id != expected:  # later ones may have been proposed ahead
                return expected
            at_work = self.conclusions.at_work(expected) or self.slots.is_at_work(trial_label(expected))
            if summary.commit is None and not at_work:
                return expected
        return len(summaries)
