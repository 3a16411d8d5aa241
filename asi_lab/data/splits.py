"""Which part a document belongs to. It depends on the text alone, so no text is in two parts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

from asi_lab.data.corpus import Document
from asi_lab.data.manifest import FILES, PartName
from asi_lab.errors import DataError

HELD_OUT_PERCENT: dict[PartName, int] = {
    "marks": 1,
    "validation": 6,
    "evaluation": 4,
    "claims": 6,
    "claims_tasks": 4,
}
"""Per cent of the documents in each part that no model is trained on. A change makes another split, with
which no older result compares."""

HEAD_CHARACTERS = 16 << 20
"""Text that is read before the first token is written: a tokenizer is trained on its training part."""


class Assigned(NamedTuple):
    """A document with the part it belongs to."""

    part: PartName
    document: Document


def part_of(document: Document) -> PartName:
    """The part of a document by a hash of its text: 79 % train. `odds` multiplies the other shares."""
    place, start = int.from_bytes(_digest(document.text), "big") % 100, 0
    for part, percent in HELD_OUT_PERCENT.items():
        start += percent * document.odds
        if place < start:
            return part
    return "train"


def without_repetition(stream: Iterator[Document]) -> Iterator[Document]:
    """The documents whose text did not come before; holds a hash per document in memory."""
    seen: set[bytes] = set()
    for document in stream:
        digest = _digest(document.text)
        if digest not in seen:
            seen.add(digest)
            yield document


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "replace")).digest()[:16]


def read_head(stream: Iterator[Document]) -> tuple[list[Assigned], bool]:
    """The first documents, as many as the tokenizer is trained on, and whether these were all."""
    head: list[Assigned] = []
    size = 0
    for document in stream:
        head.append(Assigned(part_of(document), document))
        size += len(document.text)
        if size >= HEAD_CHARACTERS:
            return head, False
    return head, True


def with_all_parts(all_documents: list[Assigned], source: str) -> list[Assigned]:
    """Give every part a document: an empty one gets that of the largest part with the least hash, among those
    that may be held out.

    Raises `DataError` for fewer of these than parts.
    """
    movable = [index for index, (_, document) in enumerate(all_documents) if document.odds]
    if len(movable) < len(FILES):
        raise DataError(
            f"{source} gives {len(movable)} different documents; each of the {len(FILES)} parts (training, "
            "marks, validation, tasks, and two kept for claims) needs one. Give at least 50,000 characters "
            "of text, better a million (long files are cut into documents of 4,000 to 8,000 characters)."
        )
    filled = list(all_documents)
    for empty in FILES:
        if all(part != empty for part, _ in filled):
            held = [filled[index].part for index in movable]
            largest = max(sorted(set(held)), key=held.count)
            donors = (index for index in movable if filled[index].part == largest)
            donor = min(donors, key=lambda index: _digest(filled[index].document.text))
            filled[donor] = Assigned(empty, filled[donor].document)
    return filled
