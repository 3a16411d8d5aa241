"""Benchmarks by name: the suites that lab.toml may name, and what the paper reads of each of their tasks.

Tasks, blocks and figures are those of tables 1, 3 and 4 and of A.2 of the ASI-ARCH paper (arXiv 2507.18074).
Its text once has social_iqa among the new benchmarks and swag among the old ones; its tables have them the
other way round, and only so do the averages of table 1 come out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from asi_lab.data import probes, taskcode

PREFIX = "suite:"
"""Stands before the name of a suite where a task may stand."""

OFFLINE_PREFIX = "asi_"
"""With what the names of the offline tasks begin, which a lab makes from its own text."""

EXPLORATION: Mapping[str, tuple[str, ...]] = {
    "wikitext": ("word_perplexity",),
    "lambada_openai": ("perplexity", "acc"),
    "piqa": ("acc",),
    "hellaswag": ("acc_norm",),
    "winogrande": ("acc",),
    "arc_easy": ("acc",),
    "arc_challenge": ("acc_norm",),
    "social_iqa": ("acc",),
    "boolq": ("acc",),
}
"""The development benchmarks: lm-eval's names, and which of its metrics are the ten figures of table 1."""

GENERALIZATION: Mapping[str, tuple[str, ...]] = {
    "race": ("acc",),
    "bbq": ("acc",),
    "metabench": ("acc",),
    "qa4mre_2011": ("acc",),
    "sciq": ("acc",),
    "swag": ("acc",),
}
"""Those of generalization: never part of a fitness, in no lab."""

SUITES: Mapping[str, tuple[str, ...]] = {
    "exploration": tuple(EXPLORATION),
    "generalization": tuple(GENERALIZATION),
    "offline": (
        *("asi_perplexity", "asi_last_word", "asi_continuation"),
        *("asi_recall", "asi_copy", "asi_induction"),
    ),
    "probes": probes.NAMES,
}

BLOCKS: Mapping[str, tuple[str, ...]] = {
    "exploration": tuple(name for name, read in EXPLORATION.items() if {"acc", "acc_norm"} & {*read}),
    "generalization": tuple(GENERALIZATION),
}
"""The tasks of which the paper averages the accuracy (table 1)."""

_FAMILIES = ("race", "bbq", "metabench", "qa4mre", "sciq", "swag", "social_bias")
"""With what the names of generalization, of their parts and variants and of the tags that hold them begin."""


def expanded(names: Iterable[str]) -> tuple[str, ...]:
    """The same names, with the tasks of a suite in the place of its name.

    Raises:
        ValueError: there is no such suite; the message says what was expected and found.
    """
    found: list[str] = []
    for name in names:
        suite = name.removeprefix(PREFIX)
        if suite == name:
            found.append(name)
        elif suite in SUITES:
            found += SUITES[suite]
        else:
            raise ValueError(f"expected one of {', '.join(PREFIX + one for one in SUITES)}; found {name!r}")
    return tuple(found)


def figures(task: str) -> tuple[str, ...]:
    """The metrics of lm-eval that the paper reads of a task; none for a task that it does not have."""
    return EXPLORATION.get(task) or GENERALIZATION.get(task, ())


def kept_for_claims(names: Iterable[str]) -> list[str]:
    """Those of these tasks that are of generalization, or parts or variants of its tasks."""
    return [name for name in names if any(name == one or name.startswith(f"{one}_") for one in _FAMILIES)]


def of_lm_eval(names: Sequence[str]) -> list[str]:
    """Those of these tasks that come with lm-eval and read a data set of the hub."""
    return [n for n in names if not n.startswith(OFFLINE_PREFIX) and not taskcode.is_folder(n)]
