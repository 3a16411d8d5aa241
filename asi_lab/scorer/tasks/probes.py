"""Synthetic probes of in-context memory, as multiple choice between four sequences of words.

Every choice uses words of the context, so that knowing which words occur is worth nothing: a model
must know where they stood. Chance is one in four.
"""

from __future__ import annotations

from random import Random
from typing import TypedDict

CHOICES = 4
PAIRS = 8
COPIED = 4
NOISE = 12
PATTERN = 12
SYMBOLS_NEEDED = 2 * PAIRS
"""Most different words in one context of any probe."""


class ChoiceRow(TypedDict):
    """One sample: the context, its possible continuations and the index of the right one."""

    context: str
    choices: list[str]
    label: int


def choice_row(context: str, right: str, wrong: list[str], random: Random) -> ChoiceRow:
    """A sample with its choices in random order."""
    choices = [right, *wrong]
    random.shuffle(choices)
    return {"context": context, "choices": choices, "label": choices.index(right)}


def recall(symbols: list[str], random: Random) -> ChoiceRow:
    """Associative recall: pairs of key and value, then one of the keys (arXiv:2312.04927, section 3)."""
    drawn = random.sample(symbols, 2 * PAIRS)
    keys, values = drawn[:PAIRS], drawn[PAIRS:]
    asked = random.randrange(PAIRS)
    pairs = [f"{key} {value}" for key, value in zip(keys, values, strict=True)]
    wrong = random.sample(values[:asked] + values[asked + 1 :], CHOICES - 1)
    return choice_row(" ".join([*pairs, keys[asked]]), values[asked], wrong, random)


def selective_copy(symbols: list[str], random: Random) -> ChoiceRow:
    """Selective copy: words among dots, then the words in their order (arXiv:2312.00752, section 3.1)."""
    copied = random.sample(symbols, COPIED)
    slots = sorted(random.sample(range(COPIED + NOISE), COPIED))
    line = ["."] * (COPIED + NOISE)
    for slot, word in zip(slots, copied, strict=True):
        line[slot] = word
    right = " ".join(copied)
    wrong: list[str] = []
    while len(wrong) < CHOICES - 1:
        other = " ".join(random.sample(copied, COPIED))
        if other != right and other not in wrong:
            wrong.append(other)
    return choice_row(" ".join([*line, ":"]), right, wrong, random)


def induction(symbols: list[str], random: Random) -> ChoiceRow:
    """Induction: a random pattern starts again and is to be continued (arXiv:2209.11895)."""
    pattern = random.sample(symbols, PATTERN)
    shown = random.randrange(2, PATTERN)
    right = pattern[shown]
    wrong = random.sample([word for word in pattern if word not in (right, pattern[shown - 1])], CHOICES - 1)
    return choice_row(" ".join([*pattern, *pattern[:shown]]), right, wrong, random)
