"""What an architecture is made of, and where its idea came from, as a language model sees it.

Both are for statistics over many candidates (paper, sections 4.2 and 4.3): nothing in the search depends on
them.
"""

from __future__ import annotations

import msgspec

from asi_lab.llm.ask import Asker
from asi_lab.records import FAMILIES, ORIGINS, Candidate, Component, Origin
from asi_lab.scoring import results

MOST_COMPONENTS, LONGEST_LABEL = 20, 60
NOTHING = "none"


class Listed(msgspec.Struct, frozen=True):
    """What the tagger answers."""

    components: tuple[Component, ...]


def components(ask: Asker, candidate: Candidate) -> tuple[Component, ...]:
    """The mechanisms that the code computes.

    Raises:
        RoleFailed: no usable list came.
        ModelError: no model can be had.
    """
    values = {"code": candidate.code, "motivation": candidate.proposed.motivation}
    return shown(ask("components", Listed, values, None, missing_components))


def shown(answer: Listed) -> tuple[Component, ...]:
    """The components as they are kept: a bounded number, each label on one line."""
    return tuple(
        msgspec.structs.replace(component, label=" ".join(component.label.split())[:LONGEST_LABEL])
        for component in answer.components[:MOST_COMPONENTS]
    )


def missing_components(answer: Listed) -> str:
    """What a list still lacks, in words for the model; empty if nothing."""
    strangers = sorted({c.family for c in answer.components} - set(FAMILIES))
    if strangers:
        return f"`family` must be one of {', '.join(FAMILIES)}; found {', '.join(strangers)[:200]}"
    return "" if answer.components else "`components` must list at least one mechanism"


def origin(ask: Asker, candidate: Candidate, parent: Candidate, insights: str, experience: str) -> Origin:
    """Whether an idea came from papers, from the lab's experience, or from neither. `insights` and
    `experience` are what its designer had read; nobody is asked where it had read nothing. Raises as
    `components`."""
    if not insights and not experience:
        return Origin("originality", "its designer had read nothing")
    values = {
        "motivation": candidate.proposed.motivation,
        "code_change": results.change(parent, candidate),
        "insights": insights or NOTHING,
        "experience": experience or NOTHING,
    }
    answer = ask("provenance", Origin, values, None, missing_origin)
    return msgspec.structs.replace(answer, reason=" ".join(answer.reason.split()))


def missing_origin(answer: Origin) -> str:
    """What is wrong with an answer, in words for the model; empty if nothing."""
    if answer.origin in ORIGINS:
        return ""
    return f"`origin` must be one of {', '.join(ORIGINS)}; found {answer.origin[:80]!r}"
