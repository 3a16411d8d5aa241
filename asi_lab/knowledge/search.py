"""Entries for a weakness, in a researcher's words: BM25 over weighted fields, with the field's synonyms.

An insight scores by the words that it shares with the query, each the more the rarer it is and the more its
field counts (BM25F, Robertson and Zaragoza 2009). What a concept is called otherwise counts as that concept.
An entry scores as its best insight. No model is needed, and results are the same everywhere.
"""

from __future__ import annotations

import math
import re
import threading
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from importlib import resources

import msgspec
import snowballstemmer

from asi_lab.knowledge.base import Base
from asi_lab.knowledge.entry import Entry, Insight

WEIGHTS = {
    "symptoms": 4.0,
    "signatures": 2.0,
    "conditions": 2.0,
    "limitation": 1.5,
    "design": 2.0,
    "title": 2.0,
    "line": 2.0,
    "mechanism": 1.0,
    "algorithm": 0.5,
    "outcomes": 1.0,
    "concepts": 0.5,
}
"""How much a field counts. `line` is the entry's one-line mechanism, `title` that of the insight."""
K1, B = 1.4, 0.5
"""How fast a word that stands there often stops to count, and how much long fields are held against it."""
CONCEPT = 2.0
"""Weight of a concept beside that of a word."""
TELLING = ("symptoms",)
"""Fields whose concepts count: where an insight says what it cures. All others speak of too many."""
OF_A_FAMILY = 2
"""Most entries of one family among the first ones."""


class Found(msgspec.Struct, frozen=True):
    """An entry for a query: its key, the title of the insight that fits best, and how well it fits."""

    key: str
    insight: str
    score: float


class Words(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`stop` are words that say nothing; `concepts` are what concepts are called in the field: words and
    phrases."""

    stop: str
    concepts: dict[str, tuple[str, ...]]


class Lexical:
    """The index over a base."""

    def __init__(self, base: Base) -> None:
        self.base = base
        self._documents = [(entry, insight) for entry, insight in base.insights()]
        counted = [
            {field: Counter(terms(text)) for field, text in fields(entry, insight).items()}
            for entry, insight in self._documents
        ]
        means = {
            field: sum(sum(one[field].values()) for one in counted) / max(1, len(counted))
            for field in WEIGHTS
        }
        self._weighted = [_weighted(one, means) for one in counted]
        spread = Counter(term for one in self._weighted for term in one)
        total = len(counted)
        self._rarity = {term: math.log(1 + (total - n + 0.5) / (n + 0.5)) for term, n in spread.items()}

    def search(self, query: str, count: int = 3, most_of_a_family: int = OF_A_FAMILY) -> list[Found]:
        """The entries that fit best, best first; fewer where no more share a word with the query."""
        wanted = Counter(terms(query))
        best: dict[str, Found] = {}
        for (entry, insight), weighted in zip(self._documents, self._weighted, strict=True):
            score = sum(
                times * self._rarity[term] * weighted[term] / (K1 + weighted[term])
                for term, times in wanted.items()
                if term in weighted
            )
            if score > 0 and score > best.get(entry.key, Found("", "", 0.0)).score:
                best[entry.key] = Found(entry.key, insight.title, score)
        ranked = sorted(best.values(), key=lambda found: (-found.score, found.key))
        return diverse(ranked, self.base, count, most_of_a_family)


def diverse(ranked: Sequence[Found], base: Base, count: int, most_of_a_family: int) -> list[Found]:
    """The first `count`, with at most `OF_A_FAMILY` of one family."""
    taken: Counter[str] = Counter()
    chosen = []
    for found in ranked:
        family = base.get(found.key).front.family
        if taken[family] < most_of_a_family:
            taken[family] += 1
            chosen.append(found)
        if len(chosen) == count:
            break
    return chosen


def fields(entry: Entry, insight: Insight) -> dict[str, str]:
    """The texts of an insight that are searched, by field."""
    texts = {"title": insight.title, "line": entry.front.mechanism}
    for field in WEIGHTS.keys() - texts.keys():
        texts[field] = getattr(insight, field) if hasattr(insight, field) else getattr(entry, field)
    return texts


@lru_cache(4096)
def terms(text: str) -> tuple[str, ...]:
    """The stems of a text's words, and the concepts that it speaks of."""
    words = re.findall(r"[a-z][a-z0-9_]+", text.lower().replace("-", " "))
    stems = tuple(_stem(word) for word in words)
    spoken = {
        stems[start : start + length]
        for length in _phrases().lengths
        for start in range(len(stems) - length + 1)
    }
    concepts = (f"={name}" for name, phrases in _phrases().of.items() if not spoken.isdisjoint(phrases))
    return (*(stem for word, stem in zip(words, stems, strict=True) if word not in _stop()), *concepts)


def _weighted(counts: Mapping[str, Counter[str]], means: Mapping[str, float]) -> dict[str, float]:
    found: dict[str, float] = defaultdict(float)
    for field, counted in counts.items():
        length = sum(counted.values())
        share = WEIGHTS[field] / (1 - B + B * length / means[field]) if means[field] else 0.0
        for term, times in counted.items():
            if term[0] != "=":
                found[term] += share * times
            elif field in TELLING:
                found[term] += share * times * CONCEPT
    return dict(found)


_stemmer = snowballstemmer.stemmer("english")
_stemming = threading.Lock()
"""Held while the stemmer is at work, which keeps the word in itself."""


@cache
def _stem(word: str) -> str:
    with _stemming:
        return str(_stemmer.stemWord(word))


@cache
def _words() -> Words:
    return msgspec.toml.decode((resources.files("asi_lab.knowledge") / "words.toml").read_bytes(), type=Words)


@cache
def _stop() -> frozenset[str]:
    return frozenset(_words().stop.split())


class _Phrases(msgspec.Struct, frozen=True):
    """What each concept is called, as stems of words, and how many words these phrases have."""

    of: dict[str, frozenset[tuple[str, ...]]]
    lengths: frozenset[int]


@cache
def _phrases() -> _Phrases:
    known = _words().concepts
    phrases = {name: frozenset(_phrase(words) for words in (name, *more)) for name, more in known.items()}
    return _Phrases(phrases, frozenset(len(phrase) for of_one in phrases.values() for phrase in of_one))


def _phrase(words: str) -> tuple[str, ...]:
    return tuple(_stem(word) for word in re.findall(r"[a-z][a-z0-9_]+", words.lower()))
