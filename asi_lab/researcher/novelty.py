"""Is a proposal new? Decided before any compute is spent on it.

draft -> embed the motivation -> nearest motivations, equal code? -> judged new -> accept, or draft again
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

import msgspec
import numpy as np

from asi_lab.common.embedding import Vector, embed
from asi_lab.common.syntax import code_hash
from asi_lab.lab import Store
from asi_lab.records import SEED_ID, Arm, Neighbour, Proposal, is_kin
from asi_lab.researcher.index import Index
from asi_lab.scoring import references

NEIGHBOURS = 5

Draft = Callable[[int, str], Proposal]
"""Writes a proposal for attempt 0, 1, ...; told of what the last one was a repetition, empty at first."""


class Proposed(msgspec.Struct, frozen=True):
    """A proposal with its motivation's vector [384]; `duplicate` says of what, empty if it is new."""

    proposal: Proposal
    vector: Vector
    duplicate: str = ""


class Known:
    """The ideas and the code of all candidates of an arm and its kin: what a proposal must differ from. Any
    thread may call; whoever accepts a proposal holds `accepting` from its last comparison to its record."""

    def __init__(self, store: Store, most_similar: float, arm: Arm) -> None:
        """Motivations of a cosine of `most_similar` count as the same."""
        self.accepting = threading.Lock()
        kin = [s for s in store.summaries() if s.id == SEED_ID or is_kin(arm, s.arm)]
        ids, vectors = store.vectors()
        mine = np.isin(ids, [s.id for s in kin])
        self.index, self._most_similar = Index(ids[mine], vectors[mine]), most_similar
        upper = references.upper()
        self._code = {upper.code_hash: upper.name}
        self._code |= {s.code_hash: _name(s.id) for s in reversed(kin) if s.code_hash}

    def until_new(
        self, draft: Draft, retries: int, repeats: Callable[[Proposal], str] = lambda proposal: ""
    ) -> Proposed:
        """As `propose`, against all that is known."""
        return propose(draft, self.index, self._code, retries, self._most_similar, repeats)

    def compared(self, proposed: Proposed) -> Proposed:
        """The same after another comparison: candidates may have been accepted since it was begun."""
        if proposed.duplicate:
            return proposed
        nearest = self.index.nearest(proposed.vector, 1)
        again = duplicate_of(proposed.proposal, nearest, self._code, self._most_similar)
        return msgspec.structs.replace(proposed, duplicate=again)

    def add(self, candidate_id: int, proposed: Proposed) -> None:
        """Remember a recorded proposal."""
        self.index.add(candidate_id, proposed.vector)
        self._code.setdefault(proposed.proposal.code_hash, _name(candidate_id))

    def claim(self, candidate_id: int, code_hash: str) -> str:
        """Have a candidate hold code that it did not have before; returns who holds it already, empty where
        nobody else does."""
        own = _name(candidate_id)
        with self.accepting:
            holder = self._code.setdefault(code_hash, own)
        return "" if holder == own else holder


def _name(candidate_id: int) -> str:
    return f"candidate {candidate_id}"


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
