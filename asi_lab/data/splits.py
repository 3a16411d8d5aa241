"""Which split a document belongs to. It depends on the text alone, so no text is in two splits."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Literal, NamedTuple

from asi_lab.data.corpus import Document
from asi_lab.errors import DataError

SplitName = Literal["train", "validation", "evaluation"]

HELD_OUT_PERCENT = 5
"""Per cent of the documents in the validation split, and as many in the evaluation split."""

HEAD_CHARACTERS = 16 << 20
"""Text that is read before the first token is written: a tokenizer is trained on its train split."""

FEWEST_DOCUMENTS = 3


class Assigned(NamedTuple):
    """A document with the split it belongs to."""

    split: SplitName
    document: Document


def split_of(text: str) -> SplitName:
    """The split of a document by a hash of its text: 90 % train, 5 % validation, 5 % evaluation."""
    place = int.from_bytes(_digest(text), "big") % 100
    if place < HELD_OUT_PERCENT:
        return "validation"
    return "evaluation" if place < 2 * HELD_OUT_PERCENT else "train"


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
        head.append(Assigned(split_of(document.text), document))
        size += len(document.text)
        if size >= HEAD_CHARACTERS:
            return head, False
    return head, True


def with_all_splits(all_documents: list[Assigned], source: str) -> list[Assigned]:
    """Give every split a document: an empty one gets that of the largest split with the least hash.

    Raises `DataError` for fewer documents than splits.
    """
    if len(all_documents) < FEWEST_DOCUMENTS:
        raise DataError(
            f"{source} gives {len(all_documents)} different documents; train, validation and evaluation need "
            "one each. Give at least 25,000 characters of text, better a million (long files are cut into "
            "documents of 4,000 to 8,000 characters)."
        )
    by_key = dict(enumerate(all_documents))
    for empty in ("validation", "evaluation", "train"):
        splits = [assigned.split for assigned in by_key.values()]
        if empty not in splits:
            largest = max(sorted(set(splits)), key=splits.count)
            donors = (index for index, assigned in by_key.items() if assigned.split == largest)
            donor = min(donors, key=lambda index: _digest(by_key[index].document.text))
            by_key[donor] = Assigned(empty, by_key[donor].document)
    return list(by_key.values())
