"""Proposals until one is new: a new architecture from a draw, asked for again while it repeats another.

draft -> embed the motivation -> nearest motivations, equal code? -> judged new -> accept, or draft again
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from asi_lab.common.embedding import Vector, embed
from asi_lab.common.syntax import code_hash
from asi_lab.records import Neighbour, Proposal
from asi_lab.researcher.index import Index

NEIGHBOURS = 5

Draft = Callable[[int, str], Proposal]
"""Writes a proposal for attempt 0, 1, ...; told of what the last one was a repetition, empty at first."""


class Proposed(msgspec.Struct, frozen=True):
    """A proposal with its motivation's vector [384]; `duplicate` says of what, empty if it is new."""

    proposal: Proposal
    vector: Vector
    duplicate: str = ""


def propose(
    draft: Draft,
    index: Index,
    known_code: Mapping[str, str],
    retries: int,
    most_similar: float,
    repeats: Callable[[Proposal], str] = lambda proposal: "",
) -> Proposed:
    """Ask for drafts until one is new, at most `1 + retries` times.

    `known_code` maps the hashes of all earlier code to the name of what holds it. Motivations of a cosine of
    `most_similar` count as the same. `repeats` looks once more at what has passed so far, and says of what it
    is a repetition.
    """
    duplicate = ""
    for attempt in range(1 + retries):
        drafted = draft(attempt, duplicate)
        vector = embed(drafted.motivation)
        nearest = index.nearest(vector, NEIGHBOURS)
        hashed = code_hash(drafted.code)
        proposal = msgspec.structs.replace(
            drafted, code_hash=hashed, nearest=tuple(nearest), rejected=attempt
        )
        duplicate = duplicate_of(proposal, nearest, known_code, most_similar) or repeats(proposal)
        if not duplicate:
            break
    return Proposed(proposal, vector, duplicate)


def duplicate_of(
    proposal: Proposal, nearest: Sequence[Neighbour], known_code: Mapping[str, str], threshold: float
) -> str:
    """Of what a proposal is a duplicate by its code or its `nearest` motivations, empty where of nothing."""
    if proposal.code_hash in known_code:
        return f"the same code as {known_code[proposal.code_hash]}"
    for neighbour in nearest:
        if neighbour.similarity >= threshold:
            return f"the same idea as candidate {neighbour.id} (similarity {neighbour.similarity:.3f})"
    return ""
