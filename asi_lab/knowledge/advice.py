"""What the cognition base has to say to a parent's weaknesses, for a planner to read and for the grammar to
lean to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from asi_lab.data.probes import PROBES
from asi_lab.errors import KnowledgeError
from asi_lab.knowledge.base import Base
from asi_lab.knowledge.entry import Entry, Insight, Value
from asi_lab.knowledge.search import Found, diverse
from asi_lab.records import Cognition

COUNT = 3
"""Entries for one parent."""
MEANING = {
    "asi_last_word": "the last word of a passage, for which its beginning must be remembered (long context)",
    "asi_perplexity": "ordinary text",
    "asi_recall": "recall of values by their keys",
    "asi_copy": "copying verbatim",
    "asi_induction": "induction: what followed the last time",
    "asi_continuation": "plausible continuations",
    "lambada_openai": "the last word of a narrative, long context",
    "squad_completion": "facts from a passage, recall",
    "swde": "extraction from long pages, recall",
    "fda": "extraction from long documents, recall",
    "held-out loss": "ordinary text",
    **{probe.name: probe.asks for probe in PROBES.values()},
}
"""What tasks and probes ask for, in the words of the field: an analyst's table names tasks alone."""

Search = Callable[[str, int], Sequence[Found]]
"""Entries for a text, best first, at most the given number. Raises `LabError` where an embedding model is
missing."""


class Adviser:
    """Answers weaknesses from a base."""

    def __init__(self, base: Base, search: Search, plain: Search) -> None:
        """`plain` is a search that needs no model."""
        self.base, self._search, self._plain = base, search, plain

    def advise(self, weaknesses: Sequence[str], *, without_model: bool = False) -> tuple[Cognition, ...]:
        """The entries that fit the weaknesses best, each with the weakness that called for it.

        Raises:
            LabError: an embedding model is missing.
        """
        search = self._plain if without_model else self._search
        best: dict[str, tuple[Found, str]] = {}
        for weakness in weaknesses:
            for found in search(_query(weakness), COUNT):
                if found.key not in best or found.score > best[found.key][0].score:
                    best[found.key] = (found, weakness)
        ranked = sorted((found for found, _ in best.values()), key=lambda one: (-one.score, one.key))
        return tuple(
            Cognition(found.key, found.insight, round(found.score, 4), best[found.key][1])
            for found in diverse(ranked, self.base, COUNT, 2)
        )

    def told(self, cognitions: Sequence[Cognition]) -> str:
        """The insights as a planner reads them; empty without any."""
        return "\n\n".join(
            self._told(cognition, *known) for cognition in cognitions if (known := self._known(cognition))
        )

    def cited(self, cognitions: Sequence[Cognition]) -> str:
        """The insights in a line each."""
        known = [(cognition, self._known(cognition)) for cognition in cognitions]
        return "\n".join(
            f"- {cognition.key} ({pair[0].front.title}): {pair[1].design}"
            for cognition, pair in known
            if pair
        )

    def hints(self, cognitions: Sequence[Cognition]) -> dict[str, Mapping[str, tuple[Value, ...]]]:
        """The genes that express the insights, by key; those without any are left out."""
        known = {cognition.key: self._known(cognition) for cognition in cognitions}
        return {key: pair[1].genome for key, pair in known.items() if pair and pair[1].genome}

    def _known(self, cognition: Cognition) -> tuple[Entry, Insight] | None:
        """The entry and the insight, None where the base does not have them any more."""
        try:
            entry = self.base.get(cognition.key)
        except KnowledgeError:
            return None
        found = next((one for one in entry.insights if one.title == cognition.insight), None)
        return None if found is None else (entry, found)

    def _told(self, cognition: Cognition, entry: Entry, insight: Insight) -> str:
        front = entry.front
        return (
            f"### {front.key}: {insight.title}\n\n({front.title}, {front.first_author} and others, "
            f"{front.year}; confidence of this entry: {insight.confidence})\n\n"
            f"For the weakness: {cognition.weakness}\n\nInsight: {insight.design}\n\n"
            f"Algorithm: {insight.algorithm}\n\nWhy it works: {insight.mechanism}\n\n"
            f"Formulation:\n{insight.formulation}\n\nIn a layer: {insight.integration}\n\n"
            f"Parameters: {insight.parameters}\n\nWhen: {insight.conditions}"
        )


def _query(weakness: str) -> str:
    """A weakness with what the tasks that it names ask for."""
    meanings = [words for name, words in MEANING.items() if name in weakness]
    return " ".join([weakness, *meanings])
