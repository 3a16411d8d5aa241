"""The entries that a lab knows: those of this package, with the lab's own above them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib import resources
from pathlib import Path

import yaml

from asi_lab.common import disk
from asi_lab.errors import KnowledgeError
from asi_lab.knowledge.entry import Entry, Insight, parse

FOLDER = "cognition"
"""Of a lab: entries of its own, which take the place of packaged ones with the same key."""

_FAST = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml, for our own files alone: deep nesting in others would overflow its stack, and end the engine."""


class Base:
    """Entries by key, in the order of their keys."""

    def __init__(self, entries: dict[str, Entry]) -> None:
        self.entries = dict(sorted(entries.items()))

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries.values())

    def get(self, key: str) -> Entry:
        """The entry of a key.

        Raises:
            KnowledgeError: there is none.
        """
        if key not in self.entries:
            near = [known for known in self.entries if key in known][:5]
            hint = f" Like it: {', '.join(near)}." if near else ""
            raise KnowledgeError(
                f"expected the key of an entry; found {key!r}.{hint} All: asi-lab cognition list"
            )
        return self.entries[key]

    def insights(self) -> Iterator[tuple[Entry, Insight]]:
        """All insights, each with its entry."""
        for entry in self:
            for insight in entry.insights:
                yield entry, insight


def load(lab: Path | None = None) -> Base:
    """The packaged entries and those in a lab's folder.

    Raises:
        KnowledgeError: one of them cannot be read.
    """
    own = {} if lab is None else {entry.key: entry for entry in _own(lab / FOLDER)}
    return Base({**_packaged(), **own})


@cache
def _packaged() -> dict[str, Entry]:
    files = (file for file in resources.files("asi_lab.cognition").iterdir() if file.name.endswith(".md"))
    entries = [parse(file.read_text(encoding="utf-8"), file.name, _FAST) for file in files]
    return {entry.key: entry for entry in entries}


def _own(folder: Path) -> Iterator[Entry]:
    if folder.is_symlink():
        raise KnowledgeError(f"{folder}: expected a folder of entries; found a link. Copy the folder there.")
    for file in sorted(folder.glob("*.md")) if folder.is_dir() else ():
        try:
            text = disk.read_plain(file)
        except (OSError, UnicodeDecodeError) as error:
            raise KnowledgeError(f"{file}: expected an entry of the cognition base; found {error}.") from None
        yield parse(text, str(file))
