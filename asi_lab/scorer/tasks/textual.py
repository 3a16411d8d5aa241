"""Tasks made of held-out text: perplexity, the last word of a sentence, the right continuation."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import accumulate
from random import Random
from typing import Any

from asi_lab.scorer.tasks.passages import Passage
from asi_lab.scorer.tasks.probes import CHOICES, choice_row

NEIGHBOURS = 12
"""Distractors come from this many passages before and after the right one."""

_SENTENCE_END = re.compile(r"( [A-Za-z]{4,})[.!?;:]?$")


def perplexity(passages: Sequence[Passage], random: Random, limit: int) -> list[dict[str, Any]]:
    """Passages to be scored whole."""
    return [{"text": passage.text} for passage in random.sample(passages, min(limit, len(passages)))]


def last_word(passages: Sequence[Passage], random: Random, limit: int) -> list[dict[str, Any]]:
    """A passage and the word to come, which occurred in it before (as in LAMBADA, arXiv:1606.06031).

    Last words of sentences come first; where there are too few, other words fill up.
    """
    final: list[dict[str, Any]] = []
    inner: list[dict[str, Any]] = []
    for passage in random.sample(passages, len(passages)):
        ends = _repeated_words(passage)
        for rows, wanted in ((final, True), (inner, False)):
            if positions := [i for i, is_final in ends if is_final == wanted]:
                rows.append(_last_word_row(passage, positions[-1]))
                break
    return (final + inner)[:limit]


def continuation(
    passages: Sequence[Passage], texts: Sequence[str], random: Random, limit: int, context_tokens: int
) -> list[dict[str, Any]]:
    """A context and four endings; the wrong ones end passages near it in the source, at like length
    (as in HellaSwag, arXiv:1905.07830). Nowhere in `texts`, all there are, does one of them follow it."""
    parts = [part for passage in passages if (part := _split(passage, context_tokens))]
    rows: list[dict[str, Any]] = []
    for i in random.sample(range(len(parts)), len(parts)):
        context, right, size = parts[i]
        near = [
            parts[j] for j in range(max(0, i - NEIGHBOURS), min(len(parts), i + NEIGHBOURS + 1)) if j != i
        ]
        near.sort(key=lambda part: abs(part[2] - size))
        endings = list(dict.fromkeys(ending for _, ending, _ in near if ending != right))[:NEIGHBOURS]
        while len(endings) >= CHOICES - 1:
            wrong = random.sample(endings, CHOICES - 1)
            if not (true := [e for e in wrong if any(f"{context} {e}" in text for text in texts)]):
                rows.append({**choice_row(context, right, wrong, random)})
                break
            endings = [ending for ending in endings if ending not in true]
        if len(rows) == limit:
            break
    return rows


def _repeated_words(passage: Passage) -> list[tuple[int, bool]]:
    """Positions in the second half whose word occurred before, and whether a sentence ends there."""
    seen: set[str] = set()
    found: list[tuple[int, bool]] = []
    for i, word in enumerate(passage.words):
        core = word.strip(" \n\t.,!?;:()'\"`")
        match = _SENTENCE_END.fullmatch(word)
        if match and core in seen and 2 * i >= len(passage.words):
            found.append((i, word[-1] in ".!?"))
        seen.add(core)
    return found


def _last_word_row(passage: Passage, position: int) -> dict[str, Any]:
    match = _SENTENCE_END.fullmatch(passage.words[position])
    assert match is not None
    return {"context": "".join(passage.words[:position]).strip(), "target": match[1]}


def _split(passage: Passage, context_tokens: int) -> tuple[str, str, int] | None:
    """Context, ending and tokens of the ending; None where it cannot be split at a plain space."""
    for i, before in enumerate(accumulate(passage.counts, initial=0)):
        if before >= context_tokens and i < len(passage.words) and re.match(r" \S", passage.words[i]):
            ending = "".join(passage.words[i:]).strip()
            return "".join(passage.words[:i]).strip(), ending, sum(passage.counts[i:])
    return None
