"""Asking for proposals until one is new."""

import numpy as np

from asi_lab.common.embedding import DIMENSION
from asi_lab.common.randomness import keyed_random
from asi_lab.records import Candidate, CandidateState
from asi_lab.researcher import grammar
from asi_lab.researcher.index import Index
from asi_lab.researcher.novelty import propose
from asi_lab.scoring import references

SEED = Candidate(0, CandidateState.DONE, 0.0, 0.0, proposal=references.seed())


def empty() -> Index:
    return Index(np.zeros(0, np.int64), np.zeros((0, DIMENSION), np.float32))


def ask(candidate_id: int = 1, index: Index | None = None, known=None, retries: int = 8, **options):
    def draft(attempt: int, repeated: str):
        return grammar.propose(SEED, [], keyed_random(7, candidate_id, "propose", attempt))

    return propose(draft, index or empty(), known or {}, retries, 0.985, **options)


def test_it_repeats_from_its_key_and_differs_between_candidates():
    assert ask().proposal == ask().proposal
    assert ask(1).proposal.code_hash != ask(2).proposal.code_hash


def test_code_that_is_known_is_not_proposed_again():
    first = ask().proposal
    second = ask(known={first.code_hash: "candidate 5"})
    assert second.duplicate == ""
    assert second.proposal.rejected >= 1
    assert second.proposal.code_hash != first.code_hash


def test_an_idea_that_is_known_is_not_proposed_again():
    first = ask()
    index = empty()
    index.add(5, first.vector)
    second = ask(index=index)
    assert second.proposal.rejected >= 1
    assert second.proposal.nearest[0].id == 5
    assert second.proposal.nearest[0].similarity < 0.985


def test_when_nothing_new_comes_it_says_of_what_it_is_a_duplicate():
    first = ask().proposal
    again = ask(known={first.code_hash: "candidate 5"}, retries=0)
    assert again.duplicate == "the same code as candidate 5"
    index = empty()
    index.add(5, ask().vector)
    near = ask(index=index, retries=0)
    assert near.duplicate.startswith("the same idea as candidate 5")


def test_a_draft_is_told_of_what_the_last_one_was_a_repetition():
    told = []

    def draft(attempt: int, repeated: str):
        told.append(repeated)
        return grammar.propose(SEED, [], keyed_random(7, 1, "propose", attempt))

    answers = iter(["candidate 3: the same gate", ""])
    proposed = propose(draft, empty(), {}, 8, 0.985, lambda proposal: next(answers))
    assert told == ["", "candidate 3: the same gate"]
    assert proposed.duplicate == ""
    assert proposed.proposal.rejected == 1
