"""The researcher: proposes a new architecture from a draw, and keeps asking until it is new.

propose -> embed the motivation -> nearest motivations, equal code? -> accept, or try again
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from asi_lab.randomness import keyed_random
from asi_lab.records import Candidate, Proposal
from asi_lab.researcher import grammar
from asi_lab.researcher.novelty import code_hash
from asi_lab.retrieval import Index, Vector, embed
from asi_lab.settings import Search

NEIGHBOURS = 5


class Proposed(msgspec.Struct, frozen=True):
    """A proposal with its motivation's vector [384]; `duplicate` says of what, empty if it is new."""

    proposal: Proposal
    vector: Vector
    duplicate: str = ""


def propose(
    candidate_id: int,
    parent: Candidate,
    references: Sequence[Candidate],
    index: Index,
    known_code: Mapping[str, str],
    search: Search,
    lab_seed: int,
) -> Proposed:
    """Ask for proposals until one is new, at most `1 + search.novelty_retries` times.

    `known_code` maps the hashes of all earlier code to the name of what holds it.
    """
    duplicate = ""
    for attempt in range(1 + search.novelty_retries):
        draft = grammar.propose(parent, references, keyed_random(lab_seed, candidate_id, "propose", attempt))
        vector = embed(draft.motivation)
        nearest = index.nearest(vector, NEIGHBOURS)
        hashed = code_hash(draft.code)
        proposal = msgspec.structs.replace(draft, code_hash=hashed, nearest=tuple(nearest), rejected=attempt)
        duplicate = _duplicate_of(proposal, known_code, search.duplicate_similarity)
        if not duplicate:
            break
    return Proposed(proposal, vector, duplicate)


def _duplicate_of(proposal: Proposal, known_code: Mapping[str, str], threshold: float) -> str:
    if proposal.code_hash in known_code:
        return f"the same code as {known_code[proposal.code_hash]}"
    for neighbour in proposal.nearest:
        if neighbour.similarity >= threshold:
            return f"the same idea as candidate {neighbour.id} (similarity {neighbour.similarity:.3f})"
    return ""
