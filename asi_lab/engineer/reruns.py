"""Further runs of candidates with other seeds, which people ask for."""

from __future__ import annotations

import functools
from collections.abc import Callable

from asi_lab.engineer.trials import Trials
from asi_lab.lab import Lineage, Store, repeats, run_label, steering, trial_label


class Reruns:
    """Begins what was asked for, wherever a slot is free."""

    def __init__(self, store: Store, lineage: Lineage, trials: Trials) -> None:
        self.store, self.lineage, self.trials = store, lineage, trials

    def begin(self, may_go_on: Callable[[], bool]) -> bool:
        """Begin all runs that were asked for; returns whether there were any, with a slot free again."""
        begun = False
        while (asked := self._first()) and may_go_on():
            self.trials.slots.begin(*asked)
            self.trials.slots.wait_for_room()
            begun = True
        return begun

    def _first(self) -> tuple[str, Callable[[], None]] | None:
        """The first run that is asked for and was not begun, and what does it."""
        for number in steering.read(self.store).reruns:
            index = 1 + len(repeats.of(self.store, number))
            name = run_label(trial_label(number), index)
            if not self.trials.slots.is_at_work(name):
                return name, functools.partial(self._run, number, index)
        return None

    def _run(self, number: int, index: int) -> None:
        candidate = self.store.held(number)
        run = repeats.Repeat(number, index, self.trials.repeat(candidate, index))
        steering.finished_rerun(self.store, run)
        steering.publish(self.store, self.lineage, number)
