"""The single values of a store, each under a key that knows its type."""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec

from asi_lab.errors import StoreError
from asi_lab.events import Heartbeat, NewEvent
from asi_lab.lab.codec import DAMAGED
from asi_lab.lab.store import Store

T = TypeVar("T")


class Key(Generic[T]):
    """A key of the store and the type of its value."""

    def __init__(self, name: str, kind: type[T], *, passing: bool = False) -> None:
        """`passing`: nothing is lost with the value, so one that another version wrote counts as none."""
        self.name, self.kind, self.passing = name, kind, passing

    def read(self, store: Store) -> T | None:
        """The value; None where there is none.

        Raises:
            StoreError: it is of another type.
        """
        value = store.get_meta(self.name)
        try:
            return None if value is None else msgspec.convert(value, self.kind)
        except msgspec.ValidationError as error:
            if self.passing:
                return None
            raise StoreError(f"{self.name} in the store holds something else ({error}): {DAMAGED}") from None

    def write(self, store: Store, value: T, *events: NewEvent) -> None:
        """Keep a value, in one transaction with `events`."""
        store.put_meta(self.name, msgspec.to_builtins(value), *events)

    def drop(self, store: Store) -> None:
        """Forget the value."""
        store.drop_meta(self.name)


ENGINE = Key("engine", Heartbeat, passing=True)
"""The last heartbeat of the engine that is at work, or was the last to be."""

CONFIG = Key("config", str)
"""The text of lab.toml that the lab began with."""

RULES = Key("rules", int)
"""The rules that the lab began with; labs of the first rules say none."""

DATA = Key("data", str)
"""The fingerprint of the data that the lab began with."""

PRUNING = Key("pruning", bool)
"""Whether pruning was in force at the last candidate."""
