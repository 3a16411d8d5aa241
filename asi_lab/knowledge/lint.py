"""Are the entries as entries are to be? Everything that can be looked at without running their sketches."""

from __future__ import annotations

import datetime
import itertools
import re
from collections.abc import Iterator, Mapping

import msgspec
import numpy as np

from asi_lab.common.embedding import embed
from asi_lab.knowledge.base import Base
from asi_lab.knowledge.entry import BACKGROUND, SECTIONS, Entry, Insight

FAMILIES = frozenset(
    {
        *("linear-attention", "delta-rule", "state-space", "gated-rnn", "long-convolution", "hybrid"),
        *("memory-and-test-time-training", "sparse-or-local-attention", "low-rank-attention"),
        *("gating-and-mixing", "normalization-and-position", "feedforward-and-experts"),
        *("optimization-and-scaling", "evaluation-and-theory"),
    }
)
METRICS = frozenset(
    {
        *("asi_perplexity", "asi_last_word", "asi_recall", "asi_copy", "asi_induction", "asi_continuation"),
        *("wikitext", "lambada_openai", "boolq", "piqa", "social_iqa", "hellaswag", "winogrande", "arc_easy"),
        *("arc_challenge", "openbookqa", "fda", "swde", "squad_completion"),
    }
)
"""Figures that task signatures may speak of, beside the held-out loss."""
MOST_BACKGROUND, MOST_SECTION, MOST_FORMULATION, MOST_MECHANISM, MOST_LINKS = 200, 90, 140, 30, 4
"""Words, and links of one kind."""
Genes = Mapping[str, tuple[object, ...]]
"""The genes of the grammar, each with all its values."""

MOST_SKETCH = 26
"""Lines."""
MOST_INSIGHTS = 3
ALIKE = 0.9
"""Cosine of the lexical embeddings from which two insights are the same."""
_ARXIV = re.compile(r"\d{4}\.\d{4,5}")
_KEY = re.compile(r"[a-z0-9][a-z0-9-]{1,60}")
_NAMED = re.compile(r"\b(?:asi|lambada|arc|social)_[a-z]+\b")
_CAUSAL = ("# causal", "# not causal")


class Fault(msgspec.Struct, frozen=True):
    """What is wrong with an entry, and which."""

    key: str
    message: str


def faults(base: Base, genes: Genes) -> list[Fault]:
    """All that is wrong, by key. Entries may name `genes` of the grammar and their values."""
    found = [Fault(entry.key, words) for entry in base for words in _entry(entry, base, genes)]
    return [*found, *_cycles(base), *_duplicates(base)]


def _entry(entry: Entry, base: Base, genes: Genes) -> Iterator[str]:
    front = entry.front
    if not _KEY.fullmatch(front.key):
        yield f"key: expected a-z, 0-9 and -; found {front.key!r}"
    if front.arxiv and not _ARXIV.fullmatch(front.arxiv):
        yield f"arxiv: expected an id such as 2406.06484, or an empty one; found {front.arxiv!r}"
    if not 1990 <= front.year <= datetime.datetime.now(tz=datetime.UTC).year + 1:
        yield f"year: found {front.year}"
    if front.family not in FAMILIES:
        yield f"family: expected one of {', '.join(sorted(FAMILIES))}; found {front.family!r}"
    yield from _longer("mechanism", front.mechanism, MOST_MECHANISM)
    background = " ".join(getattr(entry, field) for field in BACKGROUND.values())
    yield from _longer("background", background, MOST_BACKGROUND)
    for name, links in (("supersedes", front.supersedes), ("combines_with", front.combines_with)):
        if len(links) > MOST_LINKS:
            yield f"{name}: expected at most {MOST_LINKS} links; found {len(links)}"
        for link in links:
            if link == front.key or link not in base.entries:
                yield f"{name}: expected the key of another entry; found {link!r}"
    if len(entry.insights) > MOST_INSIGHTS:
        yield f"expected at most {MOST_INSIGHTS} insights; found {len(entry.insights)}"
    for insight in entry.insights:
        for words in _insight(insight, genes):
            yield f"insight {insight.title!r}: {words}"


def _insight(insight: Insight, genes: Genes) -> Iterator[str]:
    for heading, field in SECTIONS.items():
        most = MOST_FORMULATION if field == "formulation" else MOST_SECTION
        yield from _longer(heading, getattr(insight, field), most)
    if unknown := sorted(set(_NAMED.findall(insight.signatures)) - METRICS):
        yield f"Task signatures: no metric is called {', '.join(unknown)}"
    for gene, values in insight.genome.items():
        if gene not in genes:
            yield f"genome: no gene is called {gene!r}"
        elif wrong := [value for value in values if not _is_of(value, genes[gene])]:
            yield f"genome: {gene} has no value {wrong}; it has {list(genes[gene])}"
    lines = insight.sketch.strip().splitlines()
    if lines and (lines[0] not in _CAUSAL or "def sketch(x" not in insight.sketch):
        yield f"Sketch: expected {' or '.join(_CAUSAL)} and `def sketch(x)`; found {lines[0]!r}"
    if len(lines) > MOST_SKETCH:
        yield f"Sketch: expected at most {MOST_SKETCH} lines; found {len(lines)}"


def _is_of(value: object, alphabet: tuple[object, ...]) -> bool:
    """True is no 1 here."""
    return any(value == one and type(value) is type(one) for one in alphabet)


def _longer(name: str, text: str, most: int) -> Iterator[str]:
    if (length := len(text.split())) > most:
        yield f"{name}: expected at most {most} words; found {length}"


def _cycles(base: Base) -> Iterator[Fault]:
    """An entry that, by way of others, supersedes itself."""
    for entry in base:
        waiting, seen = list(entry.front.supersedes), set[str]()
        while waiting:
            key = waiting.pop()
            if key == entry.key:
                yield Fault(entry.key, "supersedes itself, by way of others")
                break
            if key in base.entries and key not in seen:
                seen.add(key)
                waiting += base.get(key).front.supersedes


def _duplicates(base: Base) -> Iterator[Fault]:
    insights = list(base.insights())
    if not insights:
        return
    texts = [" ".join(getattr(insight, field) for field in SECTIONS.values()) for _, insight in insights]
    matrix = np.stack([embed(text) for text in texts])
    alike = matrix @ matrix.T
    for one, other in itertools.combinations(range(len(insights)), 2):
        if alike[one, other] >= ALIKE:
            (first, a), (second, b) = insights[one], insights[other]
            words = (
                f"insight {b.title!r} is that of {first.key}, {a.title!r} (cosine {alike[one, other]:.2f})"
            )
            yield Fault(second.key, words)
