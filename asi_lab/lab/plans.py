"""What the plan of a candidate was begun with, kept until the candidate is published.

A planner's replies are taken up again after a kill, so it must be told again what it was told then.
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from asi_lab.lab.meta import Key
from asi_lab.lab.store import Store
from asi_lab.records import Cognition, Draw


class Plan(msgspec.Struct, frozen=True):
    """What was drawn for a candidate, the values of its planner's prompt, and the papers it is to rest on."""

    draw: Draw
    told: dict[str, str]
    cognitions: tuple[Cognition, ...] = ()


class Plans:
    """The plans under way in one lab. Any thread may call."""

    def __init__(self, store: Store, variables: Collection[str]) -> None:
        """`variables` are those of the planner's prompt."""
        self._store, self._variables = store, set(variables)

    def begun(self, candidate_id: int) -> Plan | None:
        """The plan of a candidate; None where none was begun, or where the prompt takes other variables by
        now."""
        found = _key(candidate_id).read(self._store)
        return found if found and set(found.told) == self._variables else None

    def drawn(self, candidate_id: int) -> Draw | None:
        """What was drawn for a candidate when its plan was begun: a person may have pinned another parent
        since. None where no plan was begun."""
        found = _key(candidate_id).read(self._store)
        return found.draw if found else None

    def begin(self, candidate_id: int, plan: Plan) -> None:
        """Keep the plan of a candidate until it is `done`."""
        _key(candidate_id).write(self._store, plan)

    def done(self, candidate_id: int) -> None:
        """Forget the plan of a candidate."""
        _key(candidate_id).drop(self._store)


def _key(candidate_id: int) -> Key[Plan]:
    return Key(f"plan/{candidate_id}", Plan, transient=True)
