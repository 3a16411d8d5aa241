"""The evaluation split, cut into passages of words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

import msgspec

from asi_lab.errors import DataError


class EncodesText(Protocol):
    """What evaluation needs of a tokenizer; `asi_lab.data.tokenizer` has the real ones.

    `vocab_size` is the number of tokens, `eot` the one between documents.
    """

    vocab_size: int
    eot: int

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without special tokens."""

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids."""


class HeldOutDocument(msgspec.Struct, frozen=True):
    """One line of `evaluation.jsonl`; neighbours in the order of keys come from one source."""

    key: str
    text: str


@dataclass(frozen=True)
class Passage:
    """Consecutive words of a document, each with the white space before it, and their token counts."""

    words: tuple[str, ...]
    counts: tuple[int, ...]

    @property
    def text(self) -> str:
        """The passage as it stands in the document, without white space around it."""
        return "".join(self.words).strip()


def read_documents(path: Path) -> list[HeldOutDocument]:
    """Documents that are held out, in the order of keys.

    Raises:
        DataError: the file is missing or unreadable.
    """
    try:
        lines = path.read_bytes().splitlines()
        documents = [msgspec.json.decode(line, type=HeldOutDocument) for line in lines if line]
    except FileNotFoundError as error:
        raise DataError(
            f"expected held-out documents at {path}, found no file; prepare the data again"
        ) from error
    except msgspec.MsgspecError as error:
        raise DataError(
            f"expected lines with a key and a text in {path}, found: {error}; prepare the data again"
        ) from error
    return sorted(documents, key=lambda document: document.key)


def word_counter(tokenizer: EncodesText) -> Callable[[str], int]:
    """A function that counts the tokens of a word with the white space before it, and remembers them."""
    return cache(lambda word: len(tokenizer.encode(word)))


def cut(documents: Sequence[HeldOutDocument], tokens: int, count: Callable[[str], int]) -> list[Passage]:
    """Cut documents into consecutive passages of at most `tokens` tokens, whole words each.

    Passages of less than half that length are left out, as are words that are longer than a passage.
    """
    passages: list[Passage] = []
    for document in documents:
        words: list[str] = []
        counts: list[int] = []
        total = 0
        for word in [*re.findall(r"\s*\S+", document.text), None]:
            size = count(word) if word else tokens + 1  # the end cuts like a word that does not fit
            if total + size > tokens:
                if 2 * total >= tokens:
                    passages.append(Passage(tuple(words), tuple(counts)))
                words, counts, total = [], [], 0
            if word and size <= tokens:
                words.append(word)
                counts.append(size)
                total += size
    return passages


def symbols(
    documents: Sequence[HeldOutDocument], count: Callable[[str], int], wanted: int, needed: int
) -> list[str]:
    """Frequent short words that all have the same, smallest number of tokens, for the probes.

    Args:
        documents: the text whose frequent words a model has seen often.
        count: tokens of a word with a space before it.
        wanted: number of words to return where there are as many.
        needed: least number of words.

    Raises:
        DataError: no group of words with as many tokens is large enough.
    """
    seen: Counter[str] = Counter()
    for document in documents:
        seen.update(re.findall(r"\b[a-z]{2,8}\b", document.text))
    ranked = [word for word, _ in sorted(seen.items(), key=lambda item: (-item[1], item[0]))]
    by_size: dict[int, list[str]] = {}
    for word in [*ranked, *"abcdefghijklmnopqrstuvwxyz"]:
        by_size.setdefault(count(" " + word), []).append(word)
    for size in sorted(by_size):
        if len(by_size[size]) >= needed:
            return by_size[size][:wanted]
    raise DataError(
        f"expected {needed} words of equally many tokens in the evaluation split, found at most "
        f"{max(map(len, by_size.values()))}; prepare the data again with more text"
    )
