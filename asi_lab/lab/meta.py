"""The single values of a store, each under a key that knows its type."""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec

from asi_lab.errors import StoreError
from asi_lab.events import Heartbeat, NewEvent
from asi_lab.lab.codec import DAMAGED
from asi_lab.lab.store import Store
from asi_lab.records import Promoted

T = TypeVar("T")


class Key(Generic[T]):
    """A key of the store and the type of its value."""

    def __init__(self, name: str, kind: type[T], *, transient: bool = False) -> None:
        """`transient` values are written anew again and again: one that another version wrote is read as
        none."""
        self.name, self.kind, self.transient = name, kind, transient

    def is_there(self, store: Store) -> bool:
        """Whether there is a value, of whatever type."""
        return store.get_meta(self.name) is not None

    def read(self, store: Store) -> T | None:
        """The value; None where there is none.

        Raises:
            StoreError: it is of another type.
        """
        value = store.get_meta(self.name)
        try:
            return None if value is None else msgspec.convert(value, self.kind)
        except msgspec.ValidationError as error:
            if self.transient:
                return None
            raise StoreError(f"{self.name} in the store holds something else ({error}): {DAMAGED}") from None

    def write(self, store: Store, value: T, *events: NewEvent) -> None:
        """Keep a value, in one transaction with `events`."""
        store.put_meta(self.name, msgspec.to_builtins(value), *events)

    def drop(self, store: Store) -> None:
        """Forget the value."""
        store.drop_meta(self.name)


ENGINE = Key("engine", Heartbeat, transient=True)
"""The last heartbeat of the engine that is at work, or was the last to be."""

CONFIG = Key("config", str)
"""The text of lab.toml that the lab began with."""

RULES = Key("rules", int)
"""The rules that the lab began with; labs of the first rules say none."""

DATA = Key("data", str)
"""The fingerprint of the data that the lab began with."""

CLAIMS = "promoted"


def promoted(rung: str) -> Key[Promoted]:
    """Who was promoted at a scale, and the terms of the claims there; none before the first promotion."""
    return Key(f"{CLAIMS}/{rung}" if rung else CLAIMS, Promoted)


def config_of(rung: str) -> Key[str]:
    """The settings that a scale of claims began with, as text."""
    return Key(f"rung-config/{rung}", str)


def data_of(rung: str) -> Key[str]:
    """The fingerprint of the data that a scale of claims began with."""
    return Key(f"rung-data/{rung}", str)


PRUNING = Key("pruning", bool)
"""Whether pruning was in force at the last candidate."""
