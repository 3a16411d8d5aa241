"""The claims of a lab at all its scales, beside the search within a share of the time, or after it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from asi_lab.engineer.slots import Slots
from asi_lab.engineer.verifier import Verifier


class Ladder:
    """Verifiers, that of the smallest scale first. Without any it does nothing."""

    def __init__(self, verifiers: Sequence[Verifier], slots: Slots, share: float, quota: int) -> None:
        """`share` is what the claims may have of the trial time while the search goes on, `quota` how many
        candidates are promoted at a time after it."""
        self.verifiers, self.slots, self.share, self.quota = verifiers, slots, share, quota

    def begin(self, may_go_on: Callable[[], bool]) -> bool:
        """Begin a run of the claims in a free slot, where they have had less than their share; returns
        whether there was one. Where no claim is open at a scale, the most promising candidate is promoted."""
        if not self._are_behind:
            return False
        for verifier in self.verifiers:
            if verifier.is_of_use:
                verifier.promote((), 1, by_lot=False)
                if verifier.begin(may_go_on):
                    return True
        return False

    def run(self, may_go_on: Callable[[], bool]) -> None:
        """Promote and verify at one scale after the other, each once no claim is open at the one before."""
        for verifier in self.verifiers:
            if verifier.is_of_use and not verifier.run(may_go_on, (), self.quota):
                return

    @property
    def _are_behind(self) -> bool:
        """Whether another run of the claims would still be within their share. One that goes on counts as
        long as those that have ended were on average."""
        took = [seconds for verifier in self.verifiers for seconds in verifier.took]
        known = [seconds for seconds in took if seconds is not None]
        if not known:
            return not took and bool(self.slots.seconds)
        expected = sum(known) * len(took) / len(known)
        return expected < self.share * sum(self.slots.seconds.values())
